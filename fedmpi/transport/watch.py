"""The last signs of life of other ranks, and the ranks silent for too long.

Only the arithmetic, without messages or threads.
"""

from typing import NamedTuple

# Seconds without a sign until a rank counts as lost; 0: never.
SILENCE_S = 60.0
# So many times SILENCE_S may pass until all are ready: 33 imports of torch on 2 cores take a minute.
START = 10
# Looks a time of silence, and the longest time between two looks, in seconds.
LOOKS, LONGEST_S = 6, 5.0


class Limits(NamedTuple):
    """Patience with other ranks, in seconds; 0: for ever."""

    # Without a sign of life.
    silence_s: float = SILENCE_S
    # At one job, alive or not.
    task_s: float = 0.0


class Watch:
    """The peers, each with the time of its last sign. ``now`` is in seconds, of any clock."""

    def __init__(self, peers, silence_s, now):
        self.heard = dict.fromkeys(peers, now)
        self.silence_s = silence_s
        self.looked = now
        self.interval_s = min(silence_s / LOOKS, LONGEST_S)

    def hear(self, peer, now):
        if peer in self.heard:
            self.heard[peer] = now

    def leave(self, peer):
        """``peer`` has said goodbye."""
        self.heard.pop(peer, None)

    def silent(self, now):
        """``{peer: seconds without a sign}`` of the lost peers. To be called every ``interval_s``."""
        # A longer time between two calls means this process was halted, perhaps with the others: it counts for nothing.
        halted_s = now - self.looked - 2 * self.interval_s
        if halted_s > 0:
            for peer, last in self.heard.items():
                self.heard[peer] = min(last + halted_s, now)
        self.looked = now
        silent = {}
        for peer, last in self.heard.items():
            seconds = now - last
            if seconds > self.silence_s > 0:
                silent[peer] = seconds
        return silent
