"""Numbers as people write them, and one line of progress a round."""

import math

import numpy as np

# {column of /rounds that counts answers which were not merged: the words for it}
LOST = {"late": "late", "dropped": "never came", "rejected": "diverged", "failed": "failed"}
BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
FLOP_UNITS = ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP")
MINUTE, HOUR, DAY = 60, 3600, 86400


def human_bytes(number):
    """``4.4 MB``: three digits, decimal units."""
    return scaled(number, BYTE_UNITS)


def human_flops(number):
    """``57.6 GFLOP``: three digits."""
    return scaled(number, FLOP_UNITS)


def scaled(number, units):
    """``number`` with three digits in the largest of ``units`` with at least one before the point.

    Each unit is a thousand of the one before."""
    power = 0
    # From 999.5 on, three digits round to 1000.
    while abs(number) >= 999.5 and power < len(units) - 1:
        number /= 1000
        power += 1
    is_count = power == 0 and number == int(number)
    digits = 0
    if not is_count:
        at_least_one = max(abs(number), 1)
        exponent = math.log10(at_least_one)
        before_point = 1 + int(exponent)
        after_point = 3 - before_point
        digits = max(0, after_point)
    return f"{number:.{digits}f} {units[power]}"


def human_seconds(seconds):
    """``42 s``, ``3 min 20 s``, ``2 h 05 min``, ``1 d 03 h``."""
    if seconds < 1:
        return f"{seconds:.2g} s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds < MINUTE:
        return f"{seconds} s"
    if seconds < HOUR:
        minutes, rest = divmod(seconds, MINUTE)
        return f"{minutes} min {rest:02d} s"
    if seconds < DAY:
        hours, rest = divmod(seconds, HOUR)
        return f"{hours} h {rest // MINUTE:02d} min"
    days, rest = divmod(seconds, DAY)
    return f"{days} d {rest // HOUR:02d} h"


# ---------------------------------------------------------------- progress

# A line that is too long loses its numbers in this order, and then the headline.
LEFT_OUT = ("sparsity", "up", "loss", "own", "seconds")
LONGEST_LEFT = "59 min 59 s left"


def round_line(row, total_rounds, eta_s, width=None, metric="accuracy"):
    """One line of progress from a round's row; ``row["round"]`` counts from 1, ``eta_s`` is None if
    unknown.

    ``metric`` is the headline. Beyond ``width`` columns the least important numbers are left
    out."""
    texts = _progress(row, total_rounds, eta_s, metric)
    for name in (*LEFT_OUT, metric):
        # Measured with the longest time left, so that all lines of a run have the same columns.
        longest = texts | {"left": LONGEST_LEFT}
        if width is None or len("  ".join(longest.values())) <= width:
            break
        texts.pop(name, None)
    shown = texts.values()
    return "  ".join(shown)


def _progress(row, total_rounds, eta_s, metric):
    """``{name: text}`` of the numbers of a round."""
    texts = {}
    if "round" in row:
        digits = len(str(total_rounds))
        number = row["round"]
        texts["round"] = f"round {number:>{digits}}/{total_rounds}"
    columns = {metric: metric, f"own_{metric}": "own", "loss": "loss", "sparsity": "sparsity"}
    for column, name in columns.items():
        if _has_number(row, column):
            shown = measure_text(row[column])
            if name == "sparsity":
                shown = f"{row[column]:.3f}"
            texts[name] = f"{name.replace('_', ' ')} {shown}"
    if _is_loss(row, metric):
        texts.pop("loss", None)
    if "up_bytes" in row:
        up = human_bytes(row["up_bytes"])
        texts["up"] = f"up {up}"
    if _has_number(row, "round_s"):
        round_s = row["round_s"]
        texts["seconds"] = f"{round_s:.2f} s"
    if eta_s is not None:
        left = human_seconds(eta_s)
        texts["left"] = f"{left} left"
    return texts


def measure_text(number):
    """A loss or a metric: ``0.4123``, and ``4.67e5`` where that would take more room."""
    is_short = abs(number) < 1000
    if is_short or not math.isfinite(number):
        return f"{number:.4f}"
    digits, _, power = f"{number:.2e}".partition("e")
    return f"{digits}e{int(power)}"


def _is_loss(row, metric):
    """Whether the headline ``metric`` is the loss by another name; sums may end in other bits."""
    if metric == "loss" or not _has_number(row, "loss") or not _has_number(row, metric):
        return False
    return math.isclose(row[metric], row["loss"], rel_tol=1e-6)


def _has_number(row, column):
    """NaN stands for a round without an evaluation."""
    return column in row and np.isfinite(row[column])
