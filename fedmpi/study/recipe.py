"""Recipes of studies, as people copy and edit them: TOML files of runs, measures and claims.

    title, question    a line each
    lacks              parts of the published experiment without a place here; told in every outcome
    measures           columns of the tables, of ``fedmpi.study.measures``
    against            the arm to compare all others with, in every cell
    pairs              further pairs of arms to compare: [["ours", "static"], ...],
                       or "all" for every two
    [fixed]            options of train, for all runs
    [arms.NAME]        options of one arm
    [factors.F.LEVEL]  options of a level of factor F; any other key is a word for texts
    [[claim]]          says, measure, plus, minus, where, above or below, reach, thesis: see
                       ``fedmpi.study.verdict``
    [[figure]]         kind = "curves", "factor" (x, lines) or "weights"
    [size.NAME]        about, seeds, arms (else all), [size.NAME.fixed], [size.NAME.grid]: levels
                       of each factor

A run is an arm in a *cell* (a level of every factor) with a seed. Options are those of [fixed],
then of the size, the levels in the order of the grid, and the arm: later ones win. In their texts
``{F}`` is the level of factor F, ``{word}`` a word of a level; a word may hold words. Arms with the
same options in several cells share one run.
"""

import itertools
import json
import string
from typing import NamedTuple

from fedmpi.build.options import DEFAULTS
from fedmpi.core.errors import UserError
from fedmpi.run.resume import FREE
from fedmpi.study.sweep import name_of

# Options that a recipe may set: a study itself sets the others.
OPTIONS = set(DEFAULTS) - {"seed", "out", "until"}


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


def named_pairs(recipe):
    """The pairs of arms in a recipe; none if it asks for all."""
    pairs = recipe.get("pairs", [])
    if pairs == "all":
        return []
    return pairs


def study(recipe, name, size, changes, typed):
    """The Study of a recipe at ``size``.

    ``changes(options)`` are options that win over all, such as ``data_dir``; ``typed(options,
    where)`` checks options as train does, and returns them."""
    if size not in recipe["size"]:
        listed = ", ".join(recipe["size"])
        raise UserError(f"{name} has no size {size}; it has {listed}")
    table = recipe["size"][size]
    arms = table.get("arms") or list(recipe["arms"])
    grid = {}
    for factor, levels in table.get("grid", {}).items():
        grid[factor] = [str(level) for level in levels]

    runs, options = {}, {}
    name_of_run = {}
    for seed, arm, cell in itertools.product(table["seeds"], arms, cells(grid)):
        levels = dict(zip(grid, cell))
        own_name = _run_name(arm, levels, seed)
        where = f"{name}: {own_name}"
        own = _options(recipe, table, arm, levels, where)
        own["seed"] = seed
        # Places with the same options share the first one's run.
        key = identity(own)
        if key not in name_of_run:
            name_of_run[key] = own_name
            options[own_name] = typed(own | changes(own), where)
        runs[arm, cell, seed] = name_of_run[key]
    return Study(
        name=name,
        size=size,
        recipe=recipe,
        seeds=table["seeds"],
        arms=arms,
        grid=grid,
        runs=runs,
        options=options)


def _run_name(arm, levels, seed):
    """``cosine_S-0.5_seed-1``."""
    name = name_of({"arm": arm, **levels, "seed": seed})
    return name.removeprefix("arm-")


def _options(recipe, size, arm, levels, where):
    """The options of train for one cell of an arm, with the words in their texts replaced."""
    tables = [recipe.get("fixed", {}), size.get("fixed", {})]
    words = {}
    for factor, level in levels.items():
        of_level = recipe.get("factors", {}).get(factor, {}).get(level, {})
        options, more_words = _parted(of_level)
        tables.append(options)
        words |= more_words
    # Last: an arm's own options win over all.
    tables.append(recipe["arms"][arm])

    merged = {}
    for table in tables:
        for key, value in table.items():
            merged[key.replace("-", "_")] = value
    # A word may hold words, and a level is one.
    all_words = words | levels
    filled = {key: _filled(value, all_words, where) for key, value in words.items()}
    all_words = levels | filled
    return {key: _filled(value, all_words, where) for key, value in merged.items()}


def _parted(table):
    """``(options of train, words)`` of the table of a level."""
    options, words = {}, {}
    for key, value in table.items():
        if key.replace("-", "_") in OPTIONS:
            options[key] = value
        else:
            words[key] = value
    return options, words


def _filled(value, words, where):
    """``value`` with each {word} in its texts replaced; UserError for a missing word."""
    if isinstance(value, list):
        return [_filled(part, words, where) for part in value]
    if not isinstance(value, str):
        return value
    missing = _names_in(value) - words.keys()
    if missing:
        listed = ", ".join(sorted(missing))
        raise UserError(f"{where}: {value} has a word that no level gives: {listed}")
    return value.format_map(words)


def _names_in(text):
    """The set of the words in braces."""
    names = set()
    for _, name, _, _ in string.Formatter().parse(text):
        # None stands for text behind the last brace.
        if name is not None:
            names.add(name)
    return names


def identity(options):
    """A text, equal for options of equal runs, regardless of the places of their data and files."""
    decisive = {}
    for key, value in options.items():
        # A run may be resumed with other FREE options; data in another file are other data.
        if key == "dataset" or key not in FREE:
            decisive[key] = value
    return json.dumps(decisive, sort_keys=True)
