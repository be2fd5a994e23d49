"""Claims, and their verdicts.

A claim is about a contrast: for each seed, the sum of a measure over the terms of ``plus`` less its
sum over ``minus``; a term is ``{arm = ..., FACTOR = LEVEL, ...}``. Two terms make a paired
difference, four a difference of differences, one alone a level. A factor without a level in a term
or in ``where`` is free: the claim is judged for each of its levels.

Its interval is Student's over seeds, 95 %, two-sided, for one claim alone: among twenty true null
hypotheses one interval excludes 0.

    confirmed      the interval lies wholly beyond ``above`` (or ``below``), and the mean reaches
                   ``reach``, if the claim has one
    refuted        the interval lies wholly on the other side
    not confirmed  neither; the reason is told
    incomplete     runs are missing, have failed, or have no answer
    not run        the size has no such arm or level

If a run never left chance, the reason says so: the verdict is then about starting to learn, not
about learning better. If none of a seed's runs left chance, the claim is neither confirmed nor
refuted: models without anything learned are no worse than others.
"""

import itertools
import math
from typing import NamedTuple

from fedmpi.core.words import plural
from fedmpi.read.report.statistics import interval


def paired(a, b):
    """The Interval of a - b of two dicts from seed to value, over the seeds in both."""
    differences = []
    for seed, value in a.items():
        if seed in b:
            differences.append(value - b[seed])
    return interval(differences)


def decide(spread, expected, above=None, below=None, reach=None):
    """``(verdict, reason)`` of the Interval ``spread``, to be over ``expected`` seeds."""
    if spread.n < expected:
        return "incomplete", f"{spread.n} of {plural(expected, 'seed')}"
    # Student's interval needs two values.
    if expected < 2:
        return "not confirmed", "one seed has no interval"
    sign, bound, other_side = 1, above, "below"
    if above is None:
        sign, bound, other_side = -1, below, "above"
    # From here on, positive means: on the claimed side.
    ends = (sign * (spread.low - bound), sign * (spread.high - bound))
    if max(ends) < 0:
        return "refuted", f"the interval lies {other_side} {bound:g}"
    if min(ends) <= 0:
        return "not confirmed", f"{_holder(spread)} {bound:g}"
    if reach is None:
        return "confirmed", ""
    if sign * (spread.mean - reach) < 0:
        return "not confirmed", f"in the stated direction, short of {reach:g}"
    return "confirmed", ""


def _holder(spread):
    if spread.low == spread.high:
        return "every seed has"
    return "the interval holds"


def judge(claim, study, values):
    """A dict for every combination of free levels: ``cell`` (free factors and those in ``where``),
    ``interval``, ``verdict``, ``reason``.

    ``values(arm, cell, seed, measure)`` is the number, or NaN."""
    terms = [(1, term) for term in claim["plus"]]
    terms += [(-1, term) for term in claim.get("minus", [])]
    where = {}
    for factor, levels in claim.get("where", {}).items():
        where[factor] = _level_names(levels)
    missing = _missing(terms, where, study)
    if missing:
        reason = f"this size has no {missing}"
        return [{"cell": {}, "interval": None, "verdict": "not run", "reason": reason}]
    free = _free_levels(terms, where, study)
    judged = []
    # Without free factors there is one combination, the empty one.
    for levels in itertools.product(*free.values()):
        cell = dict(zip(free, levels))
        judged.append(_judged(claim, terms, cell, study, values))
    return judged


def _level_names(levels):
    """The texts of one level or of a list of them."""
    if not isinstance(levels, list):
        levels = [levels]
    return [str(level) for level in levels]


def _missing(terms, where, study):
    """The first arm or level of a claim that the study's size lacks, as a text; None if it has
    all."""
    names = study.grid | {"arm": study.arms}
    for _, term in terms:
        for key, value in term.items():
            if str(value) not in names.get(key, []):
                return f"{key} {value}"
    for factor, levels in where.items():
        # One of the levels is enough: the claim is judged for those there are.
        in_grid = study.grid.get(factor, [])
        if set(levels).isdisjoint(in_grid):
            return f"{factor} {', '.join(levels)}"
    return None


def _free_levels(terms, where, study):
    """``{factor: [level]}`` of the factors without a term about them, with the levels of ``where``
    alone."""
    bound = {key for _, term in terms for key in term}
    free = {}
    for factor, levels in study.grid.items():
        if factor in bound:
            continue
        allowed = where.get(factor, levels)
        free[factor] = [level for level in levels if level in allowed]
    return free


def _judged(claim, terms, cell, study, values):
    """The verdict in one cell."""
    sample = _sampled(claim["measure"], terms, cell, study, values)
    spread = interval(sample.contrasts)
    num = len(study.seeds)
    verdict, reason = decide(
        spread,
        num,
        above=claim.get("above"),
        below=claim.get("below"),
        reach=claim.get("reach"))
    is_decided = verdict in ("confirmed", "refuted")
    if sample.num_mute and is_decided:
        # Chance against chance decides nothing.
        verdict = "not confirmed"
        reason = f"in {sample.num_mute} of {plural(num, 'seed')} no run left chance"
    elif sample.num_stuck:
        stuck = f"in {sample.num_stuck} of {plural(num, 'seed')} a run never left chance"
        reasons = filter(None, (reason, stuck))
        reason = "; ".join(reasons)
    return {
        "cell": cell,
        "interval": spread,
        "verdict": verdict,
        "reason": reason,
    }


class Sample(NamedTuple):
    """A claim's contrasts in one cell, of the seeds with a number for each of its terms."""

    contrasts: list
    num_stuck: int                # seeds with a run at chance to its end
    num_mute: int                 # seeds with all runs at chance to their ends


def _sampled(measure, terms, cell, study, values):
    """The Sample of a measure over the study's seeds."""
    contrasts = []
    num_stuck = num_mute = 0
    for seed in study.seeds:
        parts, stuck = [], []
        for sign, term in terms:
            arm = term["arm"]
            place = _cell_of(term, cell, study)
            value = values(arm, place, seed, measure)
            parts.append(sign * value)
            # NaN, no answer, is not 0.
            learned = values(arm, place, seed, "learned")
            stuck.append(learned == 0)
        if all(map(math.isfinite, parts)):
            contrasts.append(math.fsum(parts))
        num_stuck += any(stuck)
        num_mute += all(stuck)
    return Sample(contrasts, num_stuck, num_mute)


def _cell_of(term, cell, study):
    """The cell of a term: its own levels, else those of ``cell``."""
    level_of = cell | term
    # Recipes may write a level as a number.
    levels = [str(level_of.get(factor)) for factor in study.grid]
    return tuple(levels)
