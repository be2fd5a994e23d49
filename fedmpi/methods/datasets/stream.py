"""Data sets that are one stream of tokens, cut into windows.

A window of T tokens has T targets, the tokens one place further on, so that it takes T + 1 tokens.
A stretch of the stream is a pair (start, stop); a piece of a stretch is one, too. Two pieces share
no token, hence no window. In order, the windows of a stretch of m tokens are those that begin at

    start, start + T, start + 2 T, ...;    (m - 1) // T of them

Each token but the first is a target once; a rest of less than a window at the end is none.
"""

import numpy as np

from fedmpi.core.errors import DataError
from fedmpi.core.parts import Dataset, Stream

# Dtypes of tokens.
TOKENS = (np.uint16, np.int32, np.int64)
# The share of a text that is its test part, as nanoGPT splits.
TEST_SHARE = 0.1


# ---------------------------------------------------------------- windows


def num_windows(lengths, window):
    """int64: the number of windows in order, of stretches of so many tokens."""
    return np.maximum(np.asarray(lengths) - 1, 0) // window


def starts_of(stretches, window):
    """int64: the first token of each window in order, of ``stretches (n, 2)``."""
    starts = [np.empty(0, np.int64)]
    for start, stop in stretches:
        count = num_windows(stop - start, window)
        starts.append(start + window * np.arange(count))
    return np.concatenate(starts).astype(np.int64)


def windows(tokens, starts, window):
    """``(inputs (n, T), targets (n, T))``, both int64: the windows that begin at ``starts (n,)``."""
    # A view: only the chosen windows are copied.
    views = np.lib.stride_tricks.sliding_window_view(tokens, window + 1)
    chosen = views[starts].astype(np.int64)
    return chosen[:, :-1], chosen[:, 1:]


def in_order(stretch, window):
    """``(inputs (n, T), targets (n, T))``: the windows of a tensor of tokens ``(m,)``, as views."""
    inputs = stretch[:-1].unfold(0, window, window)
    targets = stretch[1:].unfold(0, window, window)
    return inputs, targets


def stretches_of(offsets):
    """(n, 2) int64: the stretches between offsets ``(n + 1,)``."""
    return np.stack([offsets[:-1], offsets[1:]], axis=1)


def test_starts(dataset):
    """int64: the first token of each window of the test part."""
    stream = dataset.stream
    return starts_of(stretches_of(stream.test_offsets), stream.window)


def owners(dataset):
    """(windows,) int64: the natural client of each window of the training part, None for none."""
    if not dataset.client_names:
        return None
    lengths = np.diff(dataset.stream.offsets)
    counts = num_windows(lengths, dataset.stream.window)
    return np.repeat(np.arange(len(counts)), counts)


# ---------------------------------------------------------------- data sets


def dataset_of(train, test, window, vocab, *, offsets=None, test_offsets=None, client_names=(),
               names=(), token_bytes=(np.nan, np.nan), remarks=(), whose="of tokens"):
    """The ``Dataset`` of two arrays of tokens (n,), checked.

    ``offsets`` and ``test_offsets`` are those of ``Stream``, by default of one stretch. A line of
    ``remarks`` is added about clients, and tokens, that make no window.
    """
    if window < 1:
        raise ValueError(f"context must be >= 1, got {window}")
    offsets = _offsets(train, offsets)
    test_offsets = _offsets(test, test_offsets)
    lengths = np.diff(offsets)
    dataset = Dataset(
        x_train=train,
        y_train=no_targets(train),
        x_test=test,
        y_test=no_targets(test),
        classes=0,
        mean=(0.0,),
        std=(1.0,),
        names=tuple(names),
        client_names=tuple(client_names),
        ids=True,
        remarks=(*remarks, *_short_lines(lengths, window, client_names)),
        stream=Stream(window, vocab, offsets, test_offsets, token_bytes))
    return checked_stream(dataset, whose)


def no_targets(tokens):
    """(n, 0) int64: a stream has no targets beside itself."""
    return np.empty((len(tokens), 0), np.int64)


def _offsets(tokens, offsets):
    if offsets is None:
        offsets = [0, len(tokens)]
    return np.asarray(offsets, np.int64)


def _short_lines(lengths, window, client_names):
    """A line about natural clients with less than a window."""
    num_short = int((num_windows(lengths, window) == 0).sum())
    if client_names and num_short:
        yield (f"clients: {num_short} of {len(client_names)} hold fewer than {window + 1} tokens, "
               "a window with its targets, and are left out")


def checked_stream(dataset, whose):
    """The same data set; DataError with one line at the first fault of its stream."""
    def require(ok, text):
        if not ok:
            raise DataError(f"data set {whose}: {text}")

    stream = dataset.stream
    offsets = {"train": stream.offsets, "test": stream.test_offsets}
    for part, tokens in (("train", dataset.x_train), ("test", dataset.x_test)):
        fits = isinstance(tokens, np.ndarray) and tokens.ndim == 1 and tokens.dtype in TOKENS
        require(fits, f"x_{part} must be tokens (n,) as uint16, int32 or int64, got "
                f"{getattr(tokens, 'shape', type(tokens).__name__)} "
                f"{getattr(tokens, 'dtype', '')}; store one row of ids")
        lengths = np.diff(offsets[part])
        require(offsets[part][0] == 0 and offsets[part][-1] == len(tokens) and min(lengths) >= 0,
                f"offsets of the {part}ing part must rise from 0 to {len(tokens)}, its tokens")
        longest = int(lengths.max())
        require(longest > stream.window,
                f"x_{part} has no window of {stream.window} tokens and their targets: its longest "
                f"stretch has {longest} tokens; give a smaller context, or more text")
        lowest, highest = int(tokens.min()), int(tokens.max())
        require(0 <= lowest and highest < stream.vocab,
                f"x_{part} must hold tokens in [0, {stream.vocab}), got {lowest} to {highest}; "
                "give a larger vocab")
    num_stretches = len(stream.offsets) - 1
    require(num_stretches in (1, len(dataset.client_names)),
            f"{num_stretches} stretches must be one, or one for each of "
            f"{len(dataset.client_names)} clients")
    require(len(dataset.names) in (0, stream.vocab),
            f"names must be one a token, got {len(dataset.names)} for {stream.vocab}")
    return dataset
