"""The findings of a study, as one dict for JSON: its runs, their measures, differences,
verdicts."""

import itertools
import math
import statistics

import numpy as np

from fedmpi.build.options import DEFAULTS
from fedmpi.core.errors import UserError
from fedmpi.read.headline import headline
from fedmpi.read.report.statistics import interval
from fedmpi.store import read_run
from fedmpi.study import sweep as sweeps
from fedmpi.study.measures import measure, noisiest_weight, round_weights, wrong_labels
from fedmpi.study.recipe import named_pairs
from fedmpi.study.verdict import judge, paired

VERDICTS = ("confirmed", "refuted", "not confirmed", "incomplete", "not run")


# ------------------------------------------------------------- progress


def states(study, folder):
    """``{name: state}`` of all runs."""
    return {name: state(folder, name) for name in study.options}


def state(folder, name):
    """``(status, rounds, seconds of all rounds)`` of a run; ``missing`` without a run file."""
    path = sweeps.path(folder, name, "h5")
    try:
        run = read_run(path, {"rounds/round_s"})
    except UserError as error:
        # A missing and a damaged file raise the same type.
        if "no such file" in str(error):
            return "missing", 0, 0.0
        return "damaged", 0, 0.0
    seconds = float(run.rounds["round_s"].sum())
    return run.attrs["status"], len(run.ends), seconds


def seconds_left(study, progress):
    """Seconds left for the rounds of unfinished runs on one process; None before the first
    round.

    ``progress`` are the ``states``. The pace is the median of runs of the same cell, else the same
    arm, else all."""
    kin = _kin(study)
    pace_of = _median_paces(progress, kin)
    # No round has been played anywhere.
    if not pace_of:
        return None
    left_s = 0
    for name, (status, rounds, _) in progress.items():
        if status == "finished":
            continue
        planned = study.options[name].get("rounds", DEFAULTS["rounds"])
        nearest = next(group for group in kin[name] if group in pace_of)
        left_s += (planned - rounds) * pace_of[nearest]
    return left_s


def _kin(study):
    """``{name: groups of runs with a like pace}``, from the nearest to the farthest."""
    groups = {}
    # Several places may share a run; the first place counts.
    for (arm, cell, _), name in reversed(study.runs.items()):
        groups[name] = (("cell", arm, cell), ("arm", arm), ("all",))
    return groups


def _median_paces(progress, kin):
    """``{group: median seconds a round}`` of the groups with a played round."""
    paces = {}
    for name, (_, rounds, seconds) in progress.items():
        if not rounds:
            continue
        pace_s = seconds / rounds
        for group in kin[name]:
            of_group = paces.setdefault(group, [])
            of_group.append(pace_s)
    return {group: statistics.median(of_group) for group, of_group in paces.items()}


# ------------------------------------------------------------- findings


def outcome(study, folder):
    """``(findings, traces)``: the dict, and columns of each finished run for figures."""
    statuses = {name: status for name, (status, *_) in states(study, folder).items()}
    measured, traces = _measured(study, folder, statuses)

    def value(arm, cell, seed, name):
        run = study.runs[arm, cell, seed]
        if run not in measured:
            return math.nan
        return measured[run].get(name, math.nan)

    recipe = study.recipe
    findings = {
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
        "status": statuses,
        "complete": set(statuses.values()) <= {"finished"},
        "runs": _runs(study, statuses, measured),
        "cells": _cells(study, value),
        "pairs": _pairs(study, value),
        "claims": _claims(study, value),
    }
    return findings, traces


def _measured(study, folder, statuses):
    """``({name: measures}, {name: columns for figures})`` of the finished runs."""
    measured, traces = {}, {}
    wanted = _wanted_measures(study.recipe)
    for name, status in statuses.items():
        if status != "finished":
            continue
        path = sweeps.path(folder, name, "h5")
        run = read_run(path)
        measured[name] = {text: measure(run, text) for text in wanted}
        traces[name] = _trace(run)
    return measured, traces


def _wanted_measures(recipe):
    """The measures of tables, claims and figures, each once."""
    of_claims = [claim["measure"] for claim in recipe.get("claim", [])]
    of_figures = [figure.get("measure", "accuracy") for figure in recipe.get("figure", [])]
    # All verdicts ask whether a run left chance.
    wanted = ["learned"]
    wanted += recipe["measures"]
    wanted += of_claims
    wanted += of_figures
    return list(dict.fromkeys(wanted))


def _trace(run):
    """The columns of a run for figures."""
    leading = headline(run)
    return {
        "values": run.rounds[leading.name],
        "word": leading.word,
        "noisiest": noisiest_weight(run),
        "weights": _weights(run),
    }


def _weights(run):
    """``(noise (N,), weights (T, N), NaN for absent clients)``; None if no label is wrong."""
    noise = wrong_labels(run)
    if noise is None:
        return None
    size = (len(run.ends), len(noise))
    # Clients outside a round's cohort keep NaN.
    weights = np.full(size, np.nan)
    for t, (clients, round_weight) in enumerate(round_weights(run)):
        weights[t, clients] = round_weight
    return noise, weights


def _runs(study, statuses, measured):
    """A dict for every place of the plan; several places may share one run."""
    rows = []
    for (arm, cell, seed), name in study.runs.items():
        rows.append({
            "arm": arm,
            "cell": dict(zip(study.grid, cell)),
            "seed": seed,
            "run": name,
            "status": statuses[name],
            "measures": measured.get(name),
        })
    return rows


def _claims(study, value):
    """The claims of the recipe, with a verdict for each cell."""
    claims = []
    for claim in study.recipe.get("claim", []):
        judged = judge(claim, study, value)
        claims.append({**claim, "judged": judged})
    return claims


# ------------------------------------------------------------- means and differences


def _against(study):
    """The arm of comparison; None if this size does not have it."""
    against = study.recipe.get("against")
    if against in study.arms:
        return against
    return None


def _seeds(study, arm, cell, name, value):
    """``{seed: finite value}`` of a measure."""
    by_seed = {}
    for seed in study.seeds:
        number = value(arm, cell, seed, name)
        if math.isfinite(number):
            by_seed[seed] = number
    return by_seed


def _cells(study, value):
    """A dict for each cell: its levels, and its arms."""
    rows = []
    for cell in study.cells:
        levels = dict(zip(study.grid, cell))
        arms = _arms(study, cell, value)
        rows.append({"cell": levels, "arms": arms})
    return rows


def _arms(study, cell, value):
    """A dict for each arm: of each measure the interval of its mean, and of its paired difference
    to ``against``."""
    against = _against(study)
    rows = []
    for arm in study.arms:
        row = {"arm": arm, "measures": _means(study, arm, cell, value)}
        if against and arm != against:
            row["difference"] = _difference(study, arm, against, cell, value)
        rows.append(row)
    return rows


def _means(study, arm, cell, value):
    """``{measure: interval of its mean over seeds}``, as dicts."""
    intervals = {}
    for name in study.recipe["measures"]:
        by_seed = _seeds(study, arm, cell, name, value)
        values = list(by_seed.values())
        intervals[name] = interval(values)._asdict()
    return intervals


def _difference(study, arm, against, cell, value):
    """``{measure: interval of the paired difference of two arms}``, as dicts."""
    intervals = {}
    for name in study.recipe["measures"]:
        ours = _seeds(study, arm, cell, name, value)
        theirs = _seeds(study, against, cell, name, value)
        intervals[name] = paired(ours, theirs)._asdict()
    return intervals


def _pairs(study, value):
    """The differences of the recipe's pairs of arms, or of every two, in each cell."""
    pairs = named_pairs(study.recipe)
    if study.recipe.get("pairs") == "all":
        # Recipes list the arms to be compared with first.
        pairs = [(later, earlier) for earlier, later in itertools.combinations(study.arms, 2)]
    differences = []
    for arm, against in pairs:
        # A size may leave arms out.
        if not {arm, against} <= set(study.arms):
            continue
        for cell in study.cells:
            differences.append({
                "arm": arm,
                "against": against,
                "cell": dict(zip(study.grid, cell)),
                "difference": _difference(study, arm, against, cell, value),
            })
    return differences
