"""The findings of a study, as one dict that JSON takes: its runs, their measures, differences,
verdicts."""

import itertools
import math
import statistics

import numpy as np

from fedmpi.study import sweep as sweeps
from fedmpi.core.errors import UserError
from fedmpi.build.options import DEFAULTS
from fedmpi.read.headline import headline
from fedmpi.read.report.statistics import interval
from fedmpi.store import read_run
from fedmpi.study.measures import measure, noisiest_weight
from fedmpi.study.recipe import named_pairs
from fedmpi.study.verdict import judge, paired

VERDICTS = ("confirmed", "refuted", "not confirmed", "incomplete", "not run")


def states(study, folder):
    """``{name: state}`` of all runs."""
    return {name: state(folder, name) for name in study.options}


def state(folder, name):
    """``(status, rounds, seconds of all rounds)`` of a run; ``missing`` without a run file."""
    try:
        run = read_run(sweeps.path(folder, name, "h5"), {"rounds/round_s"})
    except UserError as error:
        if "no such file" in str(error):
            return "missing", 0, 0.0
        return "damaged", 0, 0.0
    return run.attrs["status"], len(run.ends), float(run.rounds["round_s"].sum())


def seconds_left(study, found):
    """Seconds that the rounds of unfinished runs will take on one process; None before the first
    round.

    ``found`` are the ``states``. The pace is the median of finished runs of the same cell, else the
    same arm, else all."""
    # From the nearest kin to the farthest.
    kin = {name: ((arm, cell), arm, None) for (arm, cell, _), name in reversed(study.runs.items())}
    paces = {}
    for name, (_, rounds, seconds) in found.items():
        if rounds:
            for key in kin[name]:
                paces.setdefault(key, []).append(seconds / rounds)
    if not paces:
        return None
    median_of = {key: statistics.median(values) for key, values in paces.items()}
    left = 0
    for name, (status, rounds, _) in found.items():
        if status != "finished":
            planned = study.options[name].get("rounds", DEFAULTS["rounds"])
            nearest = next(key for key in kin[name] if key in median_of)
            left += (planned - rounds) * median_of[nearest]
    return left


def outcome(study, folder):
    """``(found, traces)``: the dict, and columns of each finished run that only figures need."""
    status = {name: status for name, (status, *_) in states(study, folder).items()}
    measured, traces = {}, {}
    for name in study.options:
        if status[name] == "finished":
            run = read_run(sweeps.path(folder, name, "h5"))
            measured[name] = {text: measure(run, text) for text in _wanted_measures(study.recipe)}
            traces[name] = _trace(run)

    def value(arm, cell, seed, name):
        measures = measured.get(study.runs[arm, cell, seed], {})
        return measures.get(name, math.nan)

    recipe = study.recipe
    claims = [{**claim, "judged": judge(claim, study, value)} for claim in recipe.get("claim", [])]
    found = {
        "name": study.name,
        "size": study.size,
        "title": recipe["title"],
        "question": recipe["question"],
        "lacks": recipe.get("lacks", []),
        "seeds": study.seeds,
        "arms": study.arms,
        "grid": study.grid,
        "measures": recipe["measures"],
        "against": _against(study),
        "status": status,
        "complete": all(one == "finished" for one in status.values()),
        "runs": _runs(study, status, measured),
        "cells": [{"cell": dict(zip(study.grid, cell)), "arms": _arms(study, cell, value)} for cell in study.cells],
        "pairs": _pairs(study, value),
        "claims": claims,
    }
    return found, traces


def _wanted_measures(recipe):
    """The measures of tables, claims and figures, each once; ``learned`` for all verdicts."""
    of_claims = [claim["measure"] for claim in recipe.get("claim", [])]
    of_figures = [figure.get("measure", "accuracy") for figure in recipe.get("figure", [])]
    return list(dict.fromkeys(["learned", *recipe["measures"], *of_claims, *of_figures]))


def _trace(run):
    leading = headline(run)
    return {
        "values": run.rounds[leading.name],
        "word": leading.word,
        "noisiest": noisiest_weight(run),
        "weights": _weights(run),
    }


def _runs(study, status, measured):
    """A dict for every place of the plan; several places may share one run."""
    rows = []
    for (arm, cell, seed), name in study.runs.items():
        rows.append({
            "arm": arm,
            "cell": dict(zip(study.grid, cell)),
            "seed": seed,
            "run": name,
            "status": status[name],
            "measures": measured.get(name),
        })
    return rows


def _against(study):
    """The arm of comparison; None if this size does not have it."""
    against = study.recipe.get("against")
    if against in study.arms:
        return against
    return None


def _seeds(study, arm, cell, name, value):
    """``{seed: finite value}`` of a measure."""
    by_seed = {seed: value(arm, cell, seed, name) for seed in study.seeds}
    return {seed: number for seed, number in by_seed.items() if math.isfinite(number)}


def _arms(study, cell, value):
    """A dict for each arm: of each measure the interval of its mean, and of its paired difference
    to ``against``."""
    against, rows = _against(study), []
    for arm in study.arms:
        row = {"arm": arm, "measures": {}}
        for name in study.recipe["measures"]:
            by_seed = _seeds(study, arm, cell, name, value)
            row["measures"][name] = interval(list(by_seed.values()))._asdict()
        if against and arm != against:
            row["difference"] = _difference(study, arm, against, cell, value)
        rows.append(row)
    return rows


def _difference(study, arm, against, cell, value):
    """``{measure: interval of the paired difference of two arms}``, as dicts."""
    intervals = {}
    for name in study.recipe["measures"]:
        ours = _seeds(study, arm, cell, name, value)
        theirs = _seeds(study, against, cell, name, value)
        intervals[name] = paired(ours, theirs)._asdict()
    return intervals


def _pairs(study, value):
    """The differences of the pairs of arms that the recipe names, or of every two, in each cell."""
    pairs = named_pairs(study.recipe)
    if study.recipe.get("pairs") == "all":
        pairs = [(later, earlier) for earlier, later in itertools.combinations(study.arms, 2)]
    found = []
    for arm, against in pairs:
        if not {arm, against} <= set(study.arms):
            continue
        for cell in study.cells:
            difference = _difference(study, arm, against, cell, value)
            levels = dict(zip(study.grid, cell))
            found.append({"arm": arm, "against": against, "cell": levels, "difference": difference})
    return found


def _weights(run):
    """``(noise (N,), weights (T, N), NaN for absent clients)``; None if no label is wrong."""
    noise = run.population.get("noise")
    if noise is None or noise.max(initial=0) <= 0:
        return None
    weights = np.full((len(run.ends), len(noise)), np.nan)
    for t, (start, stop) in enumerate(zip([0, *run.ends], run.ends)):
        clients = run.clients["client"][start:stop]
        weights[t, clients] = run.clients["weight"][start:stop]
    return noise, weights
