"""Checks of a recipe, as its tables were read from the file: every mistake is one line, before any
work."""

import itertools

from fedmpi.build.advice import check_keys
from fedmpi.build.options import DEFAULTS
from fedmpi.core.errors import UserError
from fedmpi.study.measures import check_measure
from fedmpi.study.recipe import OPTIONS, named_pairs

# Keys and the types of their values, table by table.
KEYS = {
    "title": str,
    "question": str,
    "lacks": list,
    "measures": list,
    "against": str,
    "pairs": (list, str),
    "fixed": dict,
    "arms": dict,
    "factors": dict,
    "claim": list,
    "figure": list,
    "size": dict,
}
NEEDED = ("title", "question", "measures", "arms", "size")
SIZE_KEYS = {"about": str, "seeds": list, "arms": list, "fixed": dict, "grid": dict}
NUMBER = (int, float)
CLAIM_KEYS = {
    "says": str,
    "measure": str,
    "plus": list,
    "minus": list,
    "where": dict,
    "above": NUMBER,
    "below": NUMBER,
    "reach": NUMBER,
    "thesis": str,
}
FIGURE_KEYS = {"kind": str, "x": str, "lines": str, "measure": str}
FIGURES = ("curves", "factor", "weights")


def check_recipe(recipe, where):
    """UserError, in one line, if the dict ``recipe`` is not one; ``where`` names its file."""
    _check_keys(recipe, KEYS, where)
    _check_needed(recipe, NEEDED, where)
    for name, arm in recipe["arms"].items():
        _check_options(arm, f"{where}: [arms.{name}]")
    factors = recipe.get("factors", {})
    _check_factors(factors, where)
    fixed = recipe.get("fixed", {})
    _check_options(fixed, f"{where}: [fixed]")
    for name, size in recipe["size"].items():
        _check_size(recipe, size, f"{where}: [size.{name}]")
    for measure in recipe["measures"]:
        check_measure(measure, where)
    _check_pairs(recipe, where)
    claims = recipe.get("claim", [])
    for number, claim in enumerate(claims, 1):
        _check_claim(recipe, claim, f"{where}: [[claim]] {number}")
    figures = recipe.get("figure", [])
    for number, figure in enumerate(figures, 1):
        _check_figure(recipe, figure, f"{where}: [[figure]] {number}")


# ------------------------------------------------------------- tables of any kind


def _check_table(table, where):
    if not isinstance(table, dict):
        raise UserError(f"{where} must be a table, got {table!r}")


def _check_keys(table, type_of, where):
    """UserError unless all keys of the table are in ``type_of``, with values of these types."""
    _check_table(table, where)
    check_keys(table, type_of, where)
    for key, value in table.items():
        # Python takes True for a number.
        is_right = isinstance(value, type_of[key]) and not isinstance(value, bool)
        if not is_right:
            raise UserError(f"{where}: {key} cannot be {value!r}")


def _check_needed(table, keys, where):
    for key in keys:
        if not table.get(key):
            raise UserError(f"{where}: {key} is missing")


def _check_options(table, where):
    _check_table(table, where)
    options = {}
    for key, value in table.items():
        options[key.replace("-", "_")] = value
    # In the order of train's own help.
    allowed = [key for key in DEFAULTS if key in OPTIONS]
    check_keys(options, allowed, f"{where}, options of fedmpi train without seed and out")


# ------------------------------------------------------------- arms, factors, sizes


def _check_factors(factors, where):
    for name, levels in factors.items():
        _check_table(levels, f"{where}: [factors.{name}]")
        for level, table in levels.items():
            _check_table(table, f"{where}: [factors.{name}.{level}]")


def _check_size(recipe, size, where):
    _check_keys(size, SIZE_KEYS, where)
    fixed = size.get("fixed", {})
    _check_options(fixed, f"{where} fixed")
    _check_seeds(size.get("seeds"), where)
    arms = size.get("arms", [])
    _check_arms(recipe, arms, where)
    grid = size.get("grid", {})
    for factor, levels in grid.items():
        if not isinstance(levels, list) or not levels:
            raise UserError(f"{where}: grid.{factor} must be a list of levels, got {levels!r}")
        _check_levels(recipe, factor, levels, where)


def _check_seeds(seeds, where):
    refusal = f"{where}: seeds must be a list of whole numbers, got {seeds!r}"
    if not seeds:
        raise UserError(refusal)
    for seed in seeds:
        # The exact type: True would be an int, too.
        if type(seed) is not int:
            raise UserError(refusal)
    different = set(seeds)
    if len(different) < len(seeds):
        raise UserError(f"{where}: seeds must differ, got {seeds}")


def _check_arms(recipe, names, where):
    arms = recipe["arms"]
    for name in names:
        # A name from a file may be a list, which no dict can look up.
        if not isinstance(name, str) or name not in arms:
            listed = ", ".join(arms)
            raise UserError(f"{where}: there is no arm {name}; arms are {listed}")


def _check_factor(recipe, factor, where):
    """UserError if no size has the factor in its grid."""
    factors = set()
    for size in recipe["size"].values():
        factors.update(size.get("grid", {}))
    if factor not in factors:
        listed = ", ".join(sorted(factors))
        raise UserError(f"{where}: {factor} is no factor; factors are {listed}")


def _check_levels(recipe, factor, levels, where):
    """UserError for a level not in the factor's table; a factor without a table has any level."""
    tables = recipe.get("factors", {})
    if factor not in tables:
        return
    names = tables[factor]
    for level in levels:
        if str(level) not in names:
            listed = ", ".join(names)
            raise UserError(f"{where}: factor {factor} has no level {level}; it has {listed}")


def _check_pairs(recipe, where):
    pairs = recipe.get("pairs")
    if isinstance(pairs, str) and pairs != "all":
        raise UserError(f"{where}: pairs must be \"all\", or a list of pairs, got {pairs!r}")
    for pair in named_pairs(recipe):
        if not isinstance(pair, list) or len(pair) != 2:
            raise UserError(
                f"{where}: pairs must be [[\"ours\", \"theirs\"], ...], got {pair!r}")
    arms = list(itertools.chain(*named_pairs(recipe)))
    if "against" in recipe:
        arms.insert(0, recipe["against"])
    _check_arms(recipe, arms, where)


# ------------------------------------------------------------- claims


def _check_claim(recipe, claim, where):
    _check_keys(claim, CLAIM_KEYS, where)
    _check_needed(claim, ("says", "measure", "plus"), where)
    check_measure(claim["measure"], where)
    _check_bound(claim, where)
    terms = [*claim["plus"], *claim.get("minus", [])]
    for term in terms:
        _check_term(recipe, term, where)
    _check_places(recipe, claim.get("where", {}), where)
    first = terms[0]
    for term in terms:
        if term.keys() != first.keys():
            raise UserError(
                f"{where}: all terms must name the same factors, got {first} and {term}")


def _check_bound(claim, where):
    has_above = "above" in claim
    has_below = "below" in claim
    if has_above == has_below:
        raise UserError(f"{where}: say either above or below")
    if "reach" not in claim:
        return
    reach = claim["reach"]
    if has_above:
        bound = claim["above"]
        is_beyond = reach >= bound
    else:
        bound = claim["below"]
        is_beyond = reach <= bound
    if not is_beyond:
        raise UserError(f"{where}: reach = {reach} lies on the wrong side of {bound}")


def _check_term(recipe, term, where):
    subject = f"{where}: a term of plus or minus"
    _check_table(term, subject)
    if "arm" not in term:
        raise UserError(f"{subject} must name its arm, got {term}")
    places = dict(term)
    arm = places.pop("arm")
    _check_arms(recipe, [arm], where)
    _check_places(recipe, places, where)


def _check_places(recipe, places, where):
    """UserError unless ``places`` maps factors to one of their levels, or to a list of them."""
    for factor, levels in places.items():
        if not isinstance(levels, list):
            levels = [levels]
        _check_factor(recipe, factor, where)
        _check_levels(recipe, factor, levels, where)


# ------------------------------------------------------------- figures


def _check_figure(recipe, figure, where):
    _check_keys(figure, FIGURE_KEYS, where)
    kind = figure.get("kind")
    if kind not in FIGURES:
        listed = ", ".join(FIGURES)
        raise UserError(f"{where}: kind must be one of {listed}, got {kind!r}")
    others = figure.keys() - {"kind"}
    if kind == "factor":
        _check_factor_figure(recipe, figure, where)
    elif others:
        listed = ", ".join(sorted(others))
        raise UserError(f"{where}: {listed}: only kind = \"factor\" has that")
    check_measure(figure.get("measure", "accuracy"), where)


def _check_factor_figure(recipe, figure, where):
    if "x" not in figure:
        raise UserError(f"{where}: kind = \"factor\" needs x = a factor")
    _check_factor(recipe, figure["x"], where)
    lines = figure.get("lines", "arm")
    if lines != "arm":
        _check_factor(recipe, lines, where)
