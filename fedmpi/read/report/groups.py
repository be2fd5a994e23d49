"""Runs that differ in the seed only belong together; groups are told apart by the options that differ between them."""

import itertools
import os
from typing import NamedTuple

from fedmpi.build import settings
from fedmpi.plugins.spec import split
from fedmpi.core.errors import FedError, UserError
from fedmpi.build.options import DEFAULTS, PARTS
from fedmpi.read.headline import headline
from fedmpi.read.report.outcomes import WHERE
from fedmpi.read.report.series import evaluated
from fedmpi.read.report.truth import options

LONGEST = 32                      # characters of a name that stands beside a line


class Group(NamedTuple):
    """Runs that are one set-up: ``tag`` A, B, ... in the order given, ``runs`` {path: Run}, each with its own seed."""

    tag: str
    label: str
    runs: dict


def grouped(runs):
    """The Groups of ``{path: Run}``. A run whose seed its group already has, or that tells no options, is alone. Groups
    of which no round has been evaluated, and then those without any, come last: pictures that cannot show them keep the
    colours of the others."""
    found = []
    for path, run in runs.items():
        place = next((each for each in found if _belongs(run, each)), None)
        if place is None:
            found.append(place := {})
        place[path] = run
    found.sort(key=lambda each: max(map(_shows, each.values())), reverse=True)
    told = [_effective(next(iter(each.values()))) for each in found]
    labels = _labels(told, [_stem(list(each)) for each in found])
    return [Group(_tag(number), label, each) for number, (label, each) in enumerate(zip(labels, found))]


def _shows(run):
    """(whether a round has been evaluated, whether there is one)."""
    return len(evaluated(run, headline(run).name)) > 0, len(run.ends) > 0


def _belongs(run, others):
    known = [options(each) for each in others.values()]
    if not options(run) or not known[0]:
        return False
    seeds, first = {each.get("seed") for each in known}, next(iter(others.values()))
    same = _effective(run) == _effective(first) and not settings.changes(_parts(first), _parts(run))
    return same and options(run).get("seed") not in seeds


def _parts(run):
    """What the run file says of each part; nothing in files of before that was recorded."""
    return run.attrs.get("parts") or []


def _effective(run):
    """The options that say what was run, those that an old file does not know as they are by default."""
    given = options(run)
    known = DEFAULTS | given if given else {}
    return {key: value for key, value in known.items() if key not in WHERE and key != "seed"}


def find_group(groups, name, what):
    """The number of the Group that ``name`` names: by its label, its letter, or one of its run files; UserError, which
    begins with ``what``, where there is none."""
    by_label = [number for number, group in enumerate(groups) if group.label == name]
    by_tag = [number for number, group in enumerate(groups) if group.tag == name]
    by_run = [number for number, group in enumerate(groups) if any(_is_called(path, name) for path in group.runs)]
    for found in (by_label, by_tag, by_run):
        if len(found) == 1:
            return found[0]
    listed = "; ".join(f"{group.tag} {group.label}" for group in groups)
    which = "names several set-ups" if by_label or by_tag or by_run else "is none of the set-ups, nor a run of one"
    raise UserError(f"{what} {name} {which}: there are {listed}")


def _is_called(path, name):
    stem = os.path.splitext(os.path.basename(path))[0]
    return name in (path, os.path.basename(path), stem) or os.path.realpath(path) == os.path.realpath(name)


def differing(groups):
    """``{option: [its text in each group]}`` of the options that differ between the groups; then, by
    part, those that differ though they were given alike: a default, or the source of a plug-in,
    that has changed."""
    runs = [next(iter(group.runs.values())) for group in groups]
    in_parts = _differing_parts([_parts(run) for run in runs])
    return _differing([_effective(run) for run in runs]) | in_parts


def _differing_parts(told):
    pairs = itertools.combinations(told, 2)
    found = [change for before, after in pairs for change in settings.changes(before, after)]
    changed = sorted({(part, key) for part, key, old, new in found})
    values = [settings.values(parts) for parts in told]
    return {f"{part}: {key}": [each.get((part, key), "-") for each in values]
            for part, key in changed}


def _differing(told):
    keys = dict.fromkeys(key for each in told for key in each)
    return {key: texts for key in keys if len(set(texts := [option_text(each.get(key)) for each in told])) > 1}


def unusual(run):
    """``{option: (its text, the default's)}`` of the options that are not as they are by default, or usual with the
    run's strategy. Imports torch where the run says which strategy that is."""
    usual = DEFAULTS | _usual_noise(options(run)) | _usual_parts(options(run))
    # What is not recorded, as in runs of before the option, was nobody's choice.
    chosen = {key: value for key, value in options(run).items() if value is not None and key not in WHERE}
    texts = {key: (option_text(value), option_text(usual.get(key))) for key, value in chosen.items()}
    return {key: pair for key, pair in texts.items() if pair[0] != pair[1]}


def _usual_noise(given):
    """The noise of a run whose data set was certainly named, as it is not the demonstration's."""
    named = given.get("dataset", DEFAULTS["dataset"]) != DEFAULTS["dataset"]
    return {"noise": "none"} if named else {}


def _usual_parts(given):
    """The parts that the strategy is usually played with; none where it cannot be asked, as it is somebody's own."""
    from fedmpi.build.usual import with_usual_parts

    if not {"strategy", "contribution"} <= given.keys():
        return {}
    parts = ("optimiser", "pruner", "contribution", "weighting")
    try:
        found = with_usual_parts(given | dict.fromkeys(parts))
        if found["contribution"] != given["contribution"]:              # which brings a weighting of its own
            others = ("optimiser", "pruner", "weighting")
            found["weighting"] = with_usual_parts(given | dict.fromkeys(others))["weighting"]
    except (FedError, ImportError, AttributeError):
        return {}
    return {name: found[name] for name in parts}


def option_text(value):
    """An option as it is shown: several parts joined by +, what there is not as none."""
    if isinstance(value, (list, tuple)):
        return " + ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)


def _tag(number):
    """A to Z, then A1 to Z1, ..."""
    return chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")


def _stem(paths):
    """What the names of the files have in common at their start, or the first one's."""
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    return os.path.commonprefix(stems).rstrip("-_. 0123456789") or stems[0] if len(stems) > 1 else stems[0]


def _labels(told, stems):
    """A name for each group: the fewest options that tell all apart, else how their files are called."""
    if len(told) == 1:
        return stems
    stems = _brief(stems)
    apart = _differing(told)
    chosen = next((keys for size in (1, 2, 3) for keys in itertools.combinations(apart, size)
                   if len(set(zip(*(apart[key] for key in keys)))) == len(told)), None)
    if chosen is None:
        return _distinct(stems)
    labels = [", ".join(each) for each in zip(*(_short(key, apart[key]) for key in chosen))]
    return labels if max(map(len, labels)) <= LONGEST else _distinct(stems)


def _brief(names):
    """The names, where one is too long to stand beside a line: of those of a sweep or a study, which are KEY-VALUE
    joined by _, the values that are not the same in all; what is too long still loses its middle."""
    if max(map(len, names)) <= LONGEST:
        return names
    bare = [name.rstrip("-_. 0123456789") for name in names]
    words = [name.split("_") for name in (bare if len(set(bare)) == len(set(names)) else names)]
    if len(set(map(len, words))) == 1 and len(set(map(tuple, words))) > 1:
        columns = [each for each in zip(*words) if len(set(each)) > 1]
        words = list(zip(*([word[os.path.commonprefix(each).rfind("-") + 1:] for word in each] for each in columns)))
    half = LONGEST // 2
    return [name if len(name) <= LONGEST else f"{name[:half - 1].rstrip('-_. ')}...{name[2 - half:].lstrip('-_. ')}"
            for name in map("_".join, words)]


def _short(key, texts):
    """The values of one option, without what all have in common, or what nobody needs to tell them apart."""
    if key not in PARTS:
        return [f"{key.replace('_', ' ')} {text}" for text in texts]
    parts = [split(text) for text in texts]
    names = [name for name, _ in parts]
    if len(set(names)) == 1:
        return [_own_options(rest, parts, names[0]) or f"{text} as usual" for text, (_, rest) in zip(texts, parts)]
    if len(set(names)) < len(set(texts)):
        rests = [_own_options(rest, parts, name) for name, rest in parts]
        names = [f"{name}:{rest}" if rest else name for name, rest in zip(names, rests)]
    return [f"{key} none" if name == "none" else name for name in names]


def _own_options(rest, parts, name):
    """Of a part's options those that are not in all the ``parts`` of that ``name``."""
    kin = [set(other.split(",")) for each, other in parts if each == name]
    return ",".join(item for item in rest.split(",") if item not in set.intersection(*kin))


def _distinct(stems):
    """The names, with a number where two are the same."""
    seen = {}
    for stem in stems:
        seen[stem] = seen.get(stem, 0) + 1
    count = dict.fromkeys(seen, 0)
    found = []
    for stem in stems:
        count[stem] += 1
        found.append(f"{stem} ({count[stem]})" if seen[stem] > 1 else stem)
    return found
