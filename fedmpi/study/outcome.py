"""What a study found, as one dict that JSON takes: its runs, their measures, differences, verdicts."""

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
    """``(status, rounds, seconds of all rounds)`` of a run; ``missing`` where there is none."""
    try:
        run = read_run(sweeps.path(folder, name, "h5"), {"rounds/round_s"})
    except UserError as error:
        return ("missing" if "no such file" in str(error) else "damaged", 0, 0.0)
    return run.attrs["status"], len(run.ends), float(run.rounds["round_s"].sum())


def seconds_left(study, found):
    """Seconds that the rounds of unfinished runs will take on one process, by the median run of those that were played:
    other seeds of the same, else of the arm, else all; None where nothing was. ``found`` is what ``states`` gave."""
    kin = {name: ((arm, cell), arm, None) for (arm, cell, _), name in reversed(study.runs.items())}
    paces = {}
    for name, (_, rounds, seconds) in found.items():
        for key in kin[name] if rounds else ():
            paces.setdefault(key, []).append(seconds / rounds)
    if not paces:
        return None
    paces = {key: statistics.median(each) for key, each in paces.items()}
    return sum((study.options[name].get("rounds", DEFAULTS["rounds"]) - rounds)
               * next(paces[key] for key in kin[name] if key in paces)
               for name, (status, rounds, _) in found.items() if status != "finished")


def outcome(study, folder):
    """``(found, traces)``: the dict, and what figures need of each finished run that does not go into JSON."""
    status = {name: each[0] for name, each in states(study, folder).items()}
    wanted = dict.fromkeys(["learned", *study.recipe["measures"],
                            *(claim["measure"] for claim in study.recipe.get("claim", [])),
                            *(each.get("measure", "accuracy") for each in study.recipe.get("figure", []))])
    measured, traces = {}, {}
    for name in study.options:
        if status[name] == "finished":
            run = read_run(sweeps.path(folder, name, "h5"))
            measured[name] = {each: measure(run, each) for each in wanted}
            leading = headline(run)
            traces[name] = dict(values=run.rounds[leading.name], word=leading.word,
                                noisiest=noisiest_weight(run), weights=_weights(run))

    def value(arm, cell, seed, name):
        return measured.get(study.runs[arm, cell, seed], {}).get(name, math.nan)

    claims = [dict(claim) | {"judged": judge(claim, study, value)} for claim in study.recipe.get("claim", [])]
    return dict(
        name=study.name, size=study.size, title=study.recipe["title"], question=study.recipe["question"],
        lacks=study.recipe.get("lacks", []), seeds=study.seeds, arms=study.arms, grid=study.grid,
        measures=study.recipe["measures"], against=_against(study), status=status,
        complete=all(each == "finished" for each in status.values()),
        runs=[dict(arm=arm, cell=dict(zip(study.grid, cell)), seed=seed, run=name, status=status[name],
                   measures=measured.get(name)) for (arm, cell, seed), name in study.runs.items()],
        cells=[dict(cell=dict(zip(study.grid, cell)), arms=_arms(study, cell, value)) for cell in study.cells],
        pairs=_pairs(study, value), claims=claims), traces


def _against(study):
    against = study.recipe.get("against")
    return against if against in study.arms else None


def _seeds(study, arm, cell, name, value):
    found = {seed: value(arm, cell, seed, name) for seed in study.seeds}
    return {seed: each for seed, each in found.items() if math.isfinite(each)}


def _arms(study, cell, value):
    """A dict for each arm: of each measure the interval of its mean, and of its paired difference to ``against``."""
    against, rows = _against(study), []
    for arm in study.arms:
        row = dict(arm=arm)
        row["measures"] = {name: interval(list(_seeds(study, arm, cell, name, value).values()))._asdict()
                           for name in study.recipe["measures"]}
        if against and arm != against:
            row["difference"] = {name: paired(_seeds(study, arm, cell, name, value),
                                              _seeds(study, against, cell, name, value))._asdict()
                                 for name in study.recipe["measures"]}
        rows.append(row)
    return rows


def _pairs(study, value):
    """The differences of the pairs of arms that the recipe names, or of every two, in each cell."""
    every = study.recipe.get("pairs") == "all"
    named = [pair[::-1] for pair in itertools.combinations(study.arms, 2)] if every else named_pairs(study.recipe)
    found = []
    for a, b in named:
        for cell in study.cells if {a, b} <= set(study.arms) else ():
            differences = {name: paired(_seeds(study, a, cell, name, value), _seeds(study, b, cell, name, value))
                           for name in study.recipe["measures"]}
            found.append(dict(arm=a, against=b, cell=dict(zip(study.grid, cell)),
                              difference={name: each._asdict() for name, each in differences.items()}))
    return found


def _weights(run):
    """``(noise of each client, (T, N) weight in each round, NaN where absent)``; None where no label is wrong."""
    noise = run.population.get("noise")
    if noise is None or noise.max(initial=0) <= 0:
        return None
    table = np.full((len(run.ends), len(noise)), np.nan)
    for t, (a, b) in enumerate(zip([0, *run.ends], run.ends)):
        table[t, run.clients["client"][a:b]] = run.clients["weight"][a:b]
    return noise, table
