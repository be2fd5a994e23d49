"""Work in slices: generators that rank 0 goes on with whenever it waits for clients."""

import time


class Slices:
    """The generator ``work``; its result can be read at its end more than once."""

    def __init__(self, work):
        self.work = work
        self.ended = False
        self.result = None

    def __iter__(self):
        return self

    def __next__(self):
        if not self.ended:
            try:
                return next(self.work)
            except StopIteration as end:
                self.ended = True
                self.result = end.value
        # As a generator would at its end, but at every further call, too.
        raise StopIteration(self.result)


class Stopwatch:
    """``yield from stopwatch(work)`` runs the generator ``work`` and times its slices.

    ``seconds`` adds them up; the time between two slices belongs to others.
    """

    def __init__(self):
        self.seconds = 0.0

    def __call__(self, work):
        while True:
            begin = time.perf_counter()
            try:
                next(work)
            except StopIteration as end:
                return end.value
            finally:
                self.seconds += time.perf_counter() - begin
            yield


def finish(work):
    """Run the generator ``work`` to its end. Returns its result, or None if it had ended before."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value
