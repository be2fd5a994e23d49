"""Claims and what becomes of them.

A claim is about a contrast: for each seed, the sum of a measure over the terms of ``plus`` less
that over ``minus``; a term is ``{arm = ..., FACTOR = LEVEL, ...}``. Two terms make a paired
difference, four a difference of differences, one alone a level. A factor that neither a term nor
``where`` names is free: the claim is judged for each of its levels.

Its interval is Student's over seeds, 95 %, two-sided, for one claim alone: among twenty true null
hypotheses one interval excludes 0.

    confirmed      the interval lies wholly beyond ``above`` (or ``below``), and the mean reaches ``reach`` where given
    refuted        it lies wholly on the other side
    not confirmed  neither; the reason is told
    incomplete     runs are missing, have failed, or have no answer
    not run        the size has no such arm or level

Where a run never left chance the reason says so: the verdict is then on who starts to learn, not on
who learns better. Where none of a seed's runs did, nothing is confirmed or refuted: models that
have learned nothing are no worse than others.
"""

import itertools
import math

from fedmpi.read.report.statistics import interval


def paired(a, b):
    """The Interval of a - b of two dicts from seed to value, over the seeds that both have."""
    return interval([a[seed] - b[seed] for seed in a if seed in b])


def decide(found, expected, above=None, below=None, reach=None):
    """``(verdict, reason)`` of the Interval ``found``, which should be over ``expected`` seeds."""
    if found.n < expected:
        return "incomplete", f"{found.n} of {expected} seeds"
    if expected < 2:
        return "not confirmed", "one seed has no interval"
    sign, bound, other_side = 1, above, "below"
    if above is None:
        sign, bound, other_side = -1, below, "above"
    # From here on, positive means: on the claimed side.
    near, far = sorted((sign * (found.low - bound), sign * (found.high - bound)))
    if far < 0:
        return "refuted", f"the interval lies {other_side} {bound:g}"
    if near <= 0:
        holds = "every seed has" if found.low == found.high else "the interval holds"
        return "not confirmed", f"{holds} {bound:g}"
    if reach is not None and sign * (found.mean - reach) < 0:
        return "not confirmed", f"in the stated direction, short of {reach:g}"
    return "confirmed", ""


def judge(claim, study, values):
    """A dict for every combination of free levels: ``cell`` (free factors and those in ``where``),
    ``interval``, ``verdict``, ``reason``. ``values(arm, cell, seed, measure)`` is the number, or
    NaN."""
    terms = [(1, term) for term in claim["plus"]]
    terms += [(-1, term) for term in claim.get("minus", [])]
    where = {factor: _level_names(levels) for factor, levels in claim.get("where", {}).items()}
    missing = _missing(terms, where, study)
    if missing:
        reason = f"this size has no {missing}"
        return [{"cell": {}, "interval": None, "verdict": "not run", "reason": reason}]
    free = _free_levels(terms, where, study)
    judged = []
    for levels in itertools.product(*free.values()):
        judged.append(_judged(claim, terms, dict(zip(free, levels)), study, values))
    return judged


def _level_names(levels):
    """The texts of one level or of a list of them."""
    if not isinstance(levels, list):
        levels = [levels]
    return [str(level) for level in levels]


def _missing(terms, where, study):
    """The first arm or level of a claim that the study's size does not have, as a text; None if it
    has all."""
    for _, term in terms:
        for key, value in term.items():
            names = study.arms if key == "arm" else study.grid.get(key, [])
            if str(value) not in names:
                return f"{key} {value}"
    for factor, levels in where.items():
        if not set(levels) & set(study.grid.get(factor, [])):
            return f"{factor} {', '.join(levels)}"
    return None


def _free_levels(terms, where, study):
    """``{factor: [level]}`` of the factors that no term names, with the levels that ``where``
    leaves."""
    bound = {key for _, term in terms for key in term}
    free = {}
    for factor, levels in study.grid.items():
        if factor not in bound:
            free[factor] = [level for level in levels if level in where.get(factor, levels)]
    return free


def _judged(claim, terms, cell, study, values):
    """The verdict in one cell."""
    places = [(sign, term["arm"], _cell_of(term, cell, study)) for sign, term in terms]
    contrasts, num_stuck, num_mute = [], 0, 0
    for seed in study.seeds:
        parts = [sign * values(arm, place, seed, claim["measure"]) for sign, arm, place in places]
        if all(map(math.isfinite, parts)):
            contrasts.append(math.fsum(parts))
        never_left = [values(arm, place, seed, "learned") == 0 for _, arm, place in places]
        num_stuck += any(never_left)
        num_mute += all(never_left)
    spread = interval(contrasts)
    num = len(study.seeds)
    verdict, reason = decide(spread, num, claim.get("above"), claim.get("below"), claim.get("reach"))
    if num_mute and verdict in ("confirmed", "refuted"):
        verdict, reason = "not confirmed", f"in {num_mute} of {num} seeds no run left chance"
    elif num_stuck:
        stuck = f"in {num_stuck} of {num} seeds a run never left chance"
        reason = "; ".join(filter(None, (reason, stuck)))
    return {"cell": cell, "interval": spread, "verdict": verdict, "reason": reason}


def _cell_of(term, cell, study):
    """The cell of a term: its own levels, else those of ``cell``."""
    return tuple(str(term.get(factor, cell.get(factor))) for factor in study.grid)
