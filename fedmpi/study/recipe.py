"""Recipes of studies, as people copy and edit them: TOML files that say what is run, what is
measured, what is claimed.

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

A run is an arm in a *cell*, which is a level of every factor, with a seed. Options are those of
[fixed], then of the size, the levels in the order of the grid, and the arm: later ones win. In
their texts ``{F}`` is the level of factor F, ``{word}`` a word of a level, which may hold words
itself. Arms that come to the same options in several cells share one run.
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
    """A recipe at one size.

    ``runs`` maps (arm, cell, seed) to the name of its run; a cell is a tuple of level names, one a
    factor of ``grid``. ``options`` maps names to the options of train."""

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
    """UserError, in one line, if the dict ``found`` is not a recipe."""
    _check_keys(found, KEYS, where)
    for key in NEEDED:
        if not found.get(key):
            raise UserError(f"{where}: {key} is missing")
    for name, arm in found["arms"].items():
        _check_options(arm, f"{where}: [arms.{name}]")
    _check_factors(found.get("factors", {}), where)
    _check_options(found.get("fixed", {}), f"{where}: [fixed]")
    for name, size in found["size"].items():
        _check_size(found, size, f"{where}: [size.{name}]")
    for measure in found["measures"]:
        check_measure(measure, where)
    _check_pairs(found, where)
    for number, claim in enumerate(found.get("claim", []), 1):
        _check_claim(found, claim, f"{where}: [[claim]] {number}")
    for number, figure in enumerate(found.get("figure", []), 1):
        _check_figure(found, figure, f"{where}: [[figure]] {number}")


def _check_factors(factors, where):
    for name, levels in factors.items():
        _check_table(levels, f"{where}: [factors.{name}]")
        for level, table in levels.items():
            _check_table(table, f"{where}: [factors.{name}.{level}]")


def _check_size(found, size, where):
    _check_keys(size, SIZE_KEYS, where)
    _check_options(size.get("fixed", {}), f"{where} fixed")
    seeds = size.get("seeds")
    if not seeds or not all(type(seed) is int for seed in seeds):
        raise UserError(f"{where}: seeds must be a list of whole numbers, got {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{where}: seeds must differ, got {seeds}")
    _check_arms(found, size.get("arms", []), where)
    for factor, levels in size.get("grid", {}).items():
        if not isinstance(levels, list) or not levels:
            raise UserError(f"{where}: grid.{factor} must be a list of levels, got {levels!r}")
        _check_levels(found, factor, levels, where)


def _check_pairs(found, where):
    pairs = found.get("pairs")
    if isinstance(pairs, str) and pairs != "all":
        raise UserError(f"{where}: pairs must be \"all\", or a list of pairs, got {pairs!r}")
    for pair in named_pairs(found):
        if not isinstance(pair, list) or len(pair) != 2:
            raise UserError(f"{where}: pairs must be [[\"ours\", \"theirs\"], ...], got {pair!r}")
    arms = list(itertools.chain(*named_pairs(found)))
    if "against" in found:
        arms.insert(0, found["against"])
    _check_arms(found, arms, where)


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
    """UserError for a level that the factor does not have; a factor without a table has any
    level."""
    names = found.get("factors", {}).get(factor)
    if names is None:
        return
    for level in levels:
        if str(level) not in names:
            raise UserError(f"{where}: factor {factor} has no level {level}; it has {', '.join(names)}")


def _check_claim(found, claim, where):
    _check_keys(claim, CLAIM_KEYS, where)
    for key in ("says", "measure", "plus"):
        if not claim.get(key):
            raise UserError(f"{where}: {key} is missing")
    check_measure(claim["measure"], where)
    _check_bound(claim, where)
    terms = [*claim["plus"], *claim.get("minus", [])]
    for term in terms:
        _check_term(found, term, where)
    _check_places(found, claim.get("where", {}), where)
    first = terms[0]
    for term in terms:
        if term.keys() != first.keys():
            raise UserError(f"{where}: all terms must name the same factors, got {first} and {term}")


def _check_bound(claim, where):
    if ("above" in claim) == ("below" in claim):
        raise UserError(f"{where}: say either above or below")
    if "reach" not in claim:
        return
    if "above" in claim:
        bound, is_beyond = claim["above"], claim["reach"] >= claim["above"]
    else:
        bound, is_beyond = claim["below"], claim["reach"] <= claim["below"]
    if not is_beyond:
        raise UserError(f"{where}: reach = {claim['reach']} lies on the wrong side of {bound}")


def _check_term(found, term, where):
    _check_table(term, f"{where}: a term of plus or minus")
    if "arm" not in term:
        raise UserError(f"{where}: a term of plus or minus must name its arm, got {term}")
    _check_arms(found, [term["arm"]], where)
    _check_places(found, {key: level for key, level in term.items() if key != "arm"}, where)


def _check_places(found, places, where):
    """UserError unless ``places`` maps factors to one of their levels, or to a list of them."""
    for factor, levels in places.items():
        if not isinstance(levels, list):
            levels = [levels]
        _check_factor(found, factor, where)
        _check_levels(found, factor, levels, where)


def _check_factor(found, factor, where):
    grids = [size.get("grid", {}) for size in found["size"].values()]
    factors = sorted({name for grid in grids for name in grid})
    if factor not in factors:
        raise UserError(f"{where}: {factor} is no factor; factors are {', '.join(factors)}")


def _check_figure(found, figure, where):
    _check_keys(figure, FIGURE_KEYS, where)
    if figure.get("kind") not in FIGURES:
        raise UserError(f"{where}: kind must be one of {', '.join(FIGURES)}, got {figure.get('kind')!r}")
    if figure["kind"] == "factor":
        _check_factor_figure(found, figure, where)
    elif len(figure) > 1:
        others = sorted(figure.keys() - {"kind"})
        raise UserError(f"{where}: {', '.join(others)}: only kind = \"factor\" has that")
    check_measure(figure.get("measure", "accuracy"), where)


def _check_factor_figure(found, figure, where):
    if "x" not in figure:
        raise UserError(f"{where}: kind = \"factor\" needs x = a factor")
    _check_factor(found, figure["x"], where)
    if figure.get("lines", "arm") != "arm":
        _check_factor(found, figure["lines"], where)


def study(found, name, size, changes, typed):
    """The Study of recipe ``found`` at ``size``.

    ``changes(options)`` are options that win over all, such as ``data_dir``; ``typed(options,
    where)`` checks options as train does, and returns them."""
    if size not in found["size"]:
        raise UserError(f"{name} has no size {size}; it has {', '.join(found['size'])}")
    this = found["size"][size]
    grid = {factor: [str(level) for level in levels] for factor, levels in this.get("grid", {}).items()}
    arms = this.get("arms") or list(found["arms"])
    runs, options, names = {}, {}, {}
    for seed, arm, cell in itertools.product(this["seeds"], arms, cells(grid)):
        levels = dict(zip(grid, cell))
        own = name_of({"arm": arm, **levels, "seed": seed}).removeprefix("arm-")
        place = f"{name}: {own}"
        given = {**_options(found, this, arm, levels, place), "seed": seed}
        key = identity(given)
        # Places with the same options share the first one's run.
        if key not in names:
            names[key] = own
            options[own] = typed(given | changes(given), place)
        runs[arm, cell, seed] = names[key]
    return Study(name, size, found, this["seeds"], arms, grid, runs, options)


def _options(found, size, arm, levels, where):
    """The options of train for one cell of an arm, with the words in their texts replaced."""
    tables, words = [found.get("fixed", {}), size.get("fixed", {})], {}
    for factor, level in levels.items():
        table = found.get("factors", {}).get(factor, {}).get(level, {})
        words |= {key: value for key, value in table.items() if not _is_option(key)}
        tables.append({key: value for key, value in table.items() if _is_option(key)})
    tables.append(found["arms"][arm])
    merged = {}
    for table in tables:
        merged |= {key.replace("-", "_"): value for key, value in table.items()}
    filled = {key: _filled(value, words | levels, where) for key, value in words.items()}
    words = levels | filled
    return {key: _filled(value, words, where) for key, value in merged.items()}


def _is_option(key):
    return key.replace("-", "_") in OPTIONS


def _filled(value, words, where):
    """``value`` with each {word} in its texts replaced; UserError for a word that is missing."""
    if isinstance(value, list):
        return [_filled(part, words, where) for part in value]
    if not isinstance(value, str):
        return value
    names = {name for _, name, _, _ in string.Formatter().parse(value) if name is not None}
    missing = names - words.keys()
    if missing:
        raise UserError(f"{where}: {value} has a word that no level gives: {', '.join(sorted(missing))}")
    return value.format_map(words)


def identity(given):
    """A text that is equal for options of equal runs, regardless of the places of their data and
    files."""
    decisive = {key: value for key, value in given.items() if key == "dataset" or key not in FREE}
    return json.dumps(decisive, sort_keys=True)
