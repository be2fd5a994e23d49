"""Recipes of studies, as people copy and edit them: TOML files that say what is run, what is measured, what is claimed.

    title, question    a line each
    lacks              what of the published experiment is not in here; told in every outcome
    measures           columns of the tables, of ``fedmpi.study.measures``
    against            the arm that all others are compared with, in every cell
    pairs              further pairs of arms that are compared: [["ours", "static"], ...],
                       or "all" for every two
    [fixed]            options of train that all runs share
    [arms.NAME]        options of one arm
    [factors.F.LEVEL]  options of a level of factor F; what is no option of train is a word for texts
    [[claim]]          says, measure, plus, minus, where, above or below, reach, thesis: see ``fedmpi.study.verdict``
    [[figure]]         kind = "curves", "factor" (x, lines) or "weights"
    [size.NAME]        about, seeds, arms (else all), [size.NAME.fixed], [size.NAME.grid]: levels of each factor

A run is an arm in a *cell*, which is a level of every factor, with a seed. Options are those of [fixed], then of the
size, the levels in the order of the grid, and the arm: later ones win. In their texts ``{F}`` is the level of factor F,
``{word}`` a word of a level, which may hold words itself. Arms that come to the same options in several cells share one
run.
"""

import itertools
import json
import string
from typing import NamedTuple

from fedmpi.build.advice import check_keys
from fedmpi.core.errors import UserError
from fedmpi.run.resume import FREE
from fedmpi.build.options import DEFAULTS
from fedmpi.study.measures import check_measure
from fedmpi.study.sweep import name_of

KEYS = {"title": str, "question": str, "lacks": list, "measures": list, "against": str,
        "pairs": (list, str), "fixed": dict,
        "arms": dict, "factors": dict, "claim": list, "figure": list, "size": dict}
NEEDED = ("title", "question", "measures", "arms", "size")
SIZE_KEYS = {"about": str, "seeds": list, "arms": list, "fixed": dict, "grid": dict}
CLAIM_KEYS = {"says": str, "measure": str, "plus": list, "minus": list, "where": dict, "above": (int, float),
              "below": (int, float), "reach": (int, float), "thesis": str}
FIGURE_KEYS = {"kind": str, "x": str, "lines": str, "measure": str}
FIGURES = ("curves", "factor", "weights")
OPTIONS = set(DEFAULTS) - {"seed", "out", "until"}           # that a recipe may set


class Study(NamedTuple):
    """A recipe at one size. ``runs`` maps (arm, cell, seed) to the name of its run; a cell is a tuple of level names,
    one a factor of ``grid``; ``options`` maps names to what is given to train."""

    name: str
    size: str
    recipe: dict
    seeds: list
    arms: list
    grid: dict
    runs: dict
    options: dict

    @property
    def cells(self):
        return cells(self.grid)


def cells(grid):
    """All tuples of levels, a level a factor of ``grid``; one empty tuple without factors."""
    return list(itertools.product(*grid.values()))


def check_recipe(found, where):
    """UserError, in one line, where the recipe ``found`` is not one."""
    _check_keys(found, KEYS, where)
    for key in NEEDED:
        if not found.get(key):
            raise UserError(f"{where}: {key} is missing")
    for name, arm in found["arms"].items():
        _check_options(arm, f"{where}: [arms.{name}]")
    for name, levels in found.get("factors", {}).items():
        _check_table(levels, f"{where}: [factors.{name}]")
        for level, table in levels.items():
            _check_table(table, f"{where}: [factors.{name}.{level}]")
    _check_options(found.get("fixed", {}), f"{where}: [fixed]")
    for name, size in found["size"].items():
        here = f"{where}: [size.{name}]"
        _check_keys(size, SIZE_KEYS, here)
        _check_options(size.get("fixed", {}), f"{here} fixed")
        if not size.get("seeds") or not all(type(seed) is int for seed in size["seeds"]):
            raise UserError(f"{here}: seeds must be a list of whole numbers, got {size.get('seeds')!r}")
        if len(set(size["seeds"])) < len(size["seeds"]):
            raise UserError(f"{here}: seeds must differ, got {size['seeds']}")
        _check_arms(found, size.get("arms", []), here)
        for factor, levels in size.get("grid", {}).items():
            if not isinstance(levels, list) or not levels:
                raise UserError(f"{here}: grid.{factor} must be a list of levels, got {levels!r}")
            _check_levels(found, factor, levels, here)
    for measure in found["measures"]:
        check_measure(measure, where)
    if isinstance(found.get("pairs"), str) and found["pairs"] != "all":
        raise UserError(f"{where}: pairs must be \"all\", or a list of pairs, got {found['pairs']!r}")
    for pair in named_pairs(found):
        if not isinstance(pair, list) or len(pair) != 2:
            raise UserError(f"{where}: pairs must be [[\"ours\", \"theirs\"], ...], got {pair!r}")
    _check_arms(found, [*([found["against"]] if "against" in found else []), *itertools.chain(*named_pairs(found))],
                where)
    for number, claim in enumerate(found.get("claim", []), 1):
        _check_claim(found, claim, f"{where}: [[claim]] {number}")
    for number, figure in enumerate(found.get("figure", []), 1):
        _check_figure(found, figure, f"{where}: [[figure]] {number}")


def named_pairs(found):
    """The pairs of arms that a recipe names; none of them where it asks for all."""
    return [] if found.get("pairs") == "all" else found.get("pairs", [])


def _check_table(table, where):
    if not isinstance(table, dict):
        raise UserError(f"{where} must be a table, got {table!r}")


def _check_keys(table, known, where):
    _check_table(table, where)
    check_keys(table, known, where)
    for key, value in table.items():
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise UserError(f"{where}: {key} cannot be {value!r}")


def _check_options(table, where):
    _check_table(table, where)
    options = {key.replace("-", "_"): value for key, value in table.items()}
    known = [key for key in DEFAULTS if key in OPTIONS]
    check_keys(options, known, f"{where}, options of fedmpi train without seed and out")


def _check_arms(found, arms, where):
    for arm in arms:
        if not isinstance(arm, str) or arm not in found["arms"]:
            raise UserError(f"{where}: there is no arm {arm}; arms are {', '.join(found['arms'])}")


def _check_levels(found, factor, levels, where):
    known = found.get("factors", {}).get(factor)
    for level in levels if known is not None else ():
        if str(level) not in known:
            raise UserError(f"{where}: factor {factor} has no level {level}; it has {', '.join(known)}")


def _check_claim(found, claim, where):
    _check_keys(claim, CLAIM_KEYS, where)
    for key in ("says", "measure", "plus"):
        if not claim.get(key):
            raise UserError(f"{where}: {key} is missing")
    check_measure(claim["measure"], where)
    if ("above" in claim) == ("below" in claim):
        raise UserError(f"{where}: say either above or below")
    bound = claim.get("above", claim.get("below"))
    if "reach" in claim and (claim["reach"] < bound) != ("below" in claim) and claim["reach"] != bound:
        raise UserError(f"{where}: reach = {claim['reach']} lies on the wrong side of {bound}")
    terms = [*claim["plus"], *claim.get("minus", [])]
    for term in terms:
        _check_table(term, f"{where}: a term of plus or minus")
        if "arm" not in term:
            raise UserError(f"{where}: a term of plus or minus must name its arm, got {term}")
        _check_arms(found, [term["arm"]], where)
    for levels in [*({key: level for key, level in term.items() if key != "arm"} for term in terms),
                   claim.get("where", {})]:
        for factor, level in levels.items():
            _check_factor(found, factor, where)
            _check_levels(found, factor, level if isinstance(level, list) else [level], where)
    other = next((term for term in terms if term.keys() != terms[0].keys()), None)
    if other:
        raise UserError(f"{where}: all terms must name the same factors, got {terms[0]} and {other}")


def _check_factor(found, factor, where):
    known = sorted({factor for size in found["size"].values() for factor in size.get("grid", {})})
    if factor not in known:
        raise UserError(f"{where}: {factor} is no factor; factors are {', '.join(known)}")


def _check_figure(found, figure, where):
    _check_keys(figure, FIGURE_KEYS, where)
    if figure.get("kind") not in FIGURES:
        raise UserError(f"{where}: kind must be one of {', '.join(FIGURES)}, got {figure.get('kind')!r}")
    of_a_factor = sorted(figure.keys() - {"kind"})
    if figure["kind"] != "factor" and of_a_factor:
        raise UserError(f"{where}: {', '.join(of_a_factor)}: only kind = \"factor\" has that")
    if figure["kind"] == "factor":
        if "x" not in figure:
            raise UserError(f"{where}: kind = \"factor\" needs x = a factor")
        for factor in (figure["x"], *([figure["lines"]] if figure.get("lines", "arm") != "arm" else [])):
            _check_factor(found, factor, where)
    check_measure(figure.get("measure", "accuracy"), where)


def study(found, name, size, changes, typed):
    """The Study of recipe ``found`` at ``size``. ``changes`` are options that win over all, such as ``data_dir``;
    ``typed(options, where)`` checks options as train does, and returns them."""
    if size not in found["size"]:
        raise UserError(f"{name} has no size {size}; it has {', '.join(found['size'])}")
    this = found["size"][size]
    grid = {factor: [str(level) for level in levels] for factor, levels in this.get("grid", {}).items()}
    arms = this.get("arms") or list(found["arms"])
    runs, options, names = {}, {}, {}
    for seed, arm, cell in itertools.product(this["seeds"], arms, cells(grid)):
        own = name_of({"arm": arm} | dict(zip(grid, cell)) | {"seed": seed}).removeprefix("arm-")
        given = _options(found, this, arm, dict(zip(grid, cell)), f"{name}: {own}") | {"seed": seed}
        key = identity(given)
        if key not in names:
            names[key] = own
            options[own] = typed(given | changes(given), f"{name}: {own}")
        runs[arm, cell, seed] = names[key]
    return Study(name, size, found, this["seeds"], arms, grid, runs, options)


def _options(found, size, arm, levels, where):
    """What is given to train, in texts of which words are replaced."""
    words, tables = {}, [found.get("fixed", {}), size.get("fixed", {})]
    for factor, level in levels.items():
        table = found.get("factors", {}).get(factor, {}).get(level, {})
        words |= {key: value for key, value in table.items() if key.replace("-", "_") not in OPTIONS}
        tables.append({key: value for key, value in table.items() if key.replace("-", "_") in OPTIONS})
    merged = {key.replace("-", "_"): value for table in [*tables, found["arms"][arm]] for key, value in table.items()}
    words = dict(levels) | {key: _filled(value, words | levels, where) for key, value in words.items()}
    return {key: _filled(value, words, where) for key, value in merged.items()}


def _filled(value, words, where):
    if isinstance(value, list):
        return [_filled(each, words, where) for each in value]
    if not isinstance(value, str):
        return value
    missing = {name for _, name, _, _ in string.Formatter().parse(value) if name is not None} - words.keys()
    if missing:
        raise UserError(f"{where}: {value} has a word that no level gives: {', '.join(sorted(missing))}")
    return value.format_map(words)


def identity(given):
    """A text that is equal for options of equal runs, wherever their data and files lie."""
    return json.dumps({key: value for key, value in given.items() if key == "dataset" or key not in FREE},
                      sort_keys=True)
