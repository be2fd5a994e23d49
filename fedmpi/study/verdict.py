"""Claims and what becomes of them.

A claim is about a contrast: for each seed, the sum of a measure over the terms of ``plus`` less that over ``minus``; a
term is ``{arm = ..., FACTOR = LEVEL, ...}``. Two terms make a paired difference, four a difference of differences, one
alone a level. A factor that neither a term nor ``where`` names is free: the claim is judged for each of its levels.

Its interval is Student's over seeds, 95 %, two-sided, for one claim alone: among twenty true null hypotheses one
interval excludes 0.

    confirmed      the interval lies wholly beyond ``above`` (or ``below``), and the mean reaches ``reach`` where given
    refuted        it lies wholly on the other side
    not confirmed  neither; the reason is told
    incomplete     runs are missing, have failed, or have no answer
    not run        the size has no such arm or level

Where a run never left chance the reason says so: the verdict is then on who starts to learn, not on who learns better.
Where none of a seed's runs did, nothing is confirmed or refuted: models that have learned nothing are no worse than
others.
"""

import itertools
import math

from fedmpi.read.report.statistics import interval


def paired(a, b):
    """The Interval of a - b of two dicts from seed to value, over the seeds that both have."""
    return interval([a[seed] - b[seed] for seed in a if seed in b])


def decide(found, expected, above=None, below=None, reach=None):
    """``(verdict, reason)`` of the Interval ``found`` of which ``expected`` seeds were to be."""
    if found.n < expected:
        return "incomplete", f"{found.n} of {expected} seeds"
    if expected < 2:
        return "not confirmed", "one seed has no interval"
    sign = 1 if above is not None else -1
    bound = above if above is not None else below
    near, far = sorted((sign * (found.low - bound), sign * (found.high - bound)))
    if far < 0:
        return "refuted", f"the interval lies {'below' if sign > 0 else 'above'} {bound:g}"
    if near <= 0:
        holds = "every seed has" if found.low == found.high else "the interval holds"
        return "not confirmed", f"{holds} {bound:g}"
    if reach is not None and sign * (found.mean - reach) < 0:
        return "not confirmed", f"in the stated direction, short of {reach:g}"
    return "confirmed", ""


def judge(claim, study, values):
    """A dict for every combination of free levels: ``cell`` (what is free or in ``where``), ``interval``, ``verdict``,
    ``reason``. ``values(arm, cell, seed, measure)`` is the number, or NaN."""
    terms = [(1, term) for term in claim["plus"]] + [(-1, term) for term in claim.get("minus", [])]
    where = {key: [str(v) for v in (value if isinstance(value, list) else [value])]
             for key, value in claim.get("where", {}).items()}
    bound = {key for _, term in terms for key in term}
    if lost := _lost(terms, where, study):
        return [dict(cell={}, interval=None, verdict="not run", reason=f"this size has no {lost}")]
    free = {factor: [level for level in levels if level in where.get(factor, levels)]
            for factor, levels in study.grid.items() if factor not in bound}
    return [_judged(claim, terms, dict(zip(free, levels)), study, values)
            for levels in itertools.product(*free.values())]


def _lost(terms, where, study):
    """What of a claim the study's size does not have, as a text, or None."""
    for _, term in terms:
        for key, value in term.items():
            known = study.arms if key == "arm" else study.grid.get(key, [])
            if str(value) not in known:
                return f"{key} {value}"
    return next((f"{key} {', '.join(levels)}" for key, levels in where.items()
                 if not set(levels) & set(study.grid.get(key, []))), None)


def _judged(claim, terms, cell, study, values):
    places = [(sign, term["arm"], tuple(str(term.get(factor, cell.get(factor))) for factor in study.grid))
              for sign, term in terms]
    sums, stuck, mute = [], 0, 0
    for seed in study.seeds:
        parts = [sign * values(arm, place, seed, claim["measure"]) for sign, arm, place in places]
        sums += [math.fsum(parts)] if all(map(math.isfinite, parts)) else []
        idle = [values(arm, place, seed, "learned") == 0 for _, arm, place in places]
        stuck, mute = stuck + any(idle), mute + all(idle)
    found = interval(sums)
    verdict, reason = decide(found, len(study.seeds), claim.get("above"), claim.get("below"), claim.get("reach"))
    if mute and verdict in ("confirmed", "refuted"):
        verdict, reason = "not confirmed", f"in {mute} of {len(study.seeds)} seeds no run left chance"
    elif stuck:
        reason = "; ".join(filter(None, (reason, f"in {stuck} of {len(study.seeds)} seeds a run never left chance")))
    return dict(cell=cell, interval=found, verdict=verdict, reason=reason)
