"""Groups of runs that differ in the seed only, named by the options in which the groups differ."""

import itertools
import os
from collections import Counter
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
    """Runs that are one set-up: ``tag`` A, B, ... in the order given, ``runs`` {path: Run}, each
    with its own seed."""

    tag: str
    label: str
    runs: dict


def grouped(runs):
    """The Groups of ``{path: Run}``.

    A run is alone if its group already has its seed, or if it records no options. Groups without an
    evaluated round come last, those without any round behind them: pictures cannot show them, and
    keep the colours of all others."""
    sets = []
    for path, run in runs.items():
        place = next((others for others in sets if _belongs(run, others)), None)
        if place is None:
            place = {}
            sets.append(place)
        place[path] = run
    sets.sort(key=lambda others: max(map(_progress, others.values())), reverse=True)
    options_of = [_effective(next(iter(others.values()))) for others in sets]
    labels = _labels(options_of, [_stem(list(others)) for others in sets])
    groups = []
    for number, (label, members) in enumerate(zip(labels, sets)):
        groups.append(Group(_tag(number), label, members))
    return groups


def _progress(run):
    """(whether a round has been evaluated, whether there is one)."""
    return len(evaluated(run, headline(run).name)) > 0, len(run.ends) > 0


def _belongs(run, others):
    """Whether the run is one more seed of the set-up of ``others`` {path: Run}."""
    first = next(iter(others.values()))
    if not options(run) or not options(first):
        return False
    seeds = {options(other).get("seed") for other in others.values()}
    if options(run).get("seed") in seeds:
        return False
    return _effective(run) == _effective(first) and not settings.changes(_parts(first), _parts(run))


def _parts(run):
    """The record of each part in the run file; old files have none."""
    return run.attrs.get("parts") or []


def _effective(run):
    """The options that decide the result; options that an old file lacks are as by default."""
    recorded = options(run)
    if not recorded:
        return {}
    return {key: value for key, value in (DEFAULTS | recorded).items() if key not in WHERE and key != "seed"}


def find_group(groups, name, what):
    """The number of the Group with this ``name``: its label, its letter, or one of its run files.

    UserError, which begins with ``what``, if no group has it."""
    by_label = [number for number, group in enumerate(groups) if group.label == name]
    by_tag = [number for number, group in enumerate(groups) if group.tag == name]
    by_run = [number for number, group in enumerate(groups) if any(_is_called(path, name) for path in group.runs)]
    for numbers in (by_label, by_tag, by_run):
        if len(numbers) == 1:
            return numbers[0]
    reason = "is none of the set-ups, nor a run of one"
    if by_label or by_tag or by_run:
        reason = "names several set-ups"
    listed = "; ".join(f"{group.tag} {group.label}" for group in groups)
    raise UserError(f"{what} {name} {reason}: there are {listed}")


def _is_called(path, name):
    file = os.path.basename(path)
    stem = os.path.splitext(file)[0]
    if name in (path, file, stem):
        return True
    return os.path.realpath(path) == os.path.realpath(name)


def differing(groups):
    """``{option: [its text in each group]}`` of the options that differ between the groups.

    Then, by part, options that differ though they were given alike: a default has changed, or a
    plug-in's source."""
    runs = [next(iter(group.runs.values())) for group in groups]
    in_parts = _differing_parts([_parts(run) for run in runs])
    return _differing([_effective(run) for run in runs]) | in_parts


def _differing_parts(parts_of):
    """The same of the ``parts_of`` each group's first run."""
    changed = set()
    for before, after in itertools.combinations(parts_of, 2):
        changed |= {(part, key) for part, key, *_ in settings.changes(before, after)}
    values = [settings.values(parts) for parts in parts_of]
    texts = {}
    for part, key in sorted(changed):
        texts[f"{part}: {key}"] = [value.get((part, key), "-") for value in values]
    return texts


def _differing(options_of):
    """``{option: [its texts]}`` of the options that do not have one text in all dicts."""
    keys = dict.fromkeys(key for options in options_of for key in options)
    texts = {key: [option_text(options.get(key)) for options in options_of] for key in keys}
    return {key: values for key, values in texts.items() if len(set(values)) > 1}


def unusual(run):
    """``{option: (its text, the default's)}`` of the options that are neither as by default, nor as
    usual with the run's strategy. Imports torch if the run records its strategy."""
    recorded = options(run)
    usual = DEFAULTS | _usual_noise(recorded) | _usual_parts(recorded)
    texts = {}
    for key, value in recorded.items():
        # Old run files do not record an option: nobody chose it.
        if value is None or key in WHERE:
            continue
        text, usual_text = option_text(value), option_text(usual.get(key))
        if text != usual_text:
            texts[key] = (text, usual_text)
    return texts


def _usual_noise(recorded):
    """No noise, unless the data set may be the demonstration's, which brings noise of its own."""
    if recorded.get("dataset", DEFAULTS["dataset"]) == DEFAULTS["dataset"]:
        return {}
    return {"noise": "none"}


def _usual_parts(recorded):
    """The usual parts of the strategy; none if the strategy cannot be imported, as a plug-in of
    somebody else."""
    from fedmpi.build.usual import with_usual_parts

    if not {"strategy", "contribution"} <= recorded.keys():
        return {}
    parts = ("optimiser", "pruner", "contribution", "weighting")
    try:
        usual = with_usual_parts(recorded | dict.fromkeys(parts))
        if usual["contribution"] != recorded["contribution"]:
            # Another contribution brings a weighting of its own.
            others = ("optimiser", "pruner", "weighting")
            usual["weighting"] = with_usual_parts(recorded | dict.fromkeys(others))["weighting"]
    except (FedError, ImportError, AttributeError):
        return {}
    return {name: usual[name] for name in parts}


def option_text(value):
    """The text of an option's value: several parts are joined by +, an empty one is ``none``."""
    if isinstance(value, (list, tuple)):
        return " + ".join(map(str, value)) or "none"
    if value in (None, ""):
        return "none"
    return str(value)


def _tag(number):
    """A to Z, then A1 to Z1, ..."""
    turn, place = divmod(number, 26)
    letter = chr(ord("A") + place)
    if not turn:
        return letter
    return f"{letter}{turn}"


def _stem(paths):
    """The common beginning of the names of the files, or the first name."""
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    if len(stems) == 1:
        return stems[0]
    return os.path.commonprefix(stems).rstrip("-_. 0123456789") or stems[0]


def _labels(options_of, stems):
    """A name for each group: the fewest options that tell all apart, else the names of their
    files."""
    if len(options_of) == 1:
        return stems
    stems = _distinct(_brief(stems))
    texts_of = _differing(options_of)
    keys = _fewest_keys(texts_of, len(options_of))
    if keys is None:
        return stems
    columns = [_short(key, texts_of[key]) for key in keys]
    labels = [", ".join(texts) for texts in zip(*columns)]
    if max(map(len, labels)) > LONGEST:
        return stems
    return labels


def _fewest_keys(texts_of, num_groups):
    """Up to three options whose texts tell all groups apart, or None."""
    for size in (1, 2, 3):
        for keys in itertools.combinations(texts_of, size):
            combined = set(zip(*(texts_of[key] for key in keys)))
            if len(combined) == num_groups:
                return keys
    return None


def _brief(names):
    """Names that fit beside a line; all as they are if all fit.

    Names of a sweep or a study are KEY-VALUE joined by _: only values that differ are kept. Names
    that are still too long lose their middle."""
    if max(map(len, names)) <= LONGEST:
        return names
    bare = [name.rstrip("-_. 0123456789") for name in names]
    if len(set(bare)) < len(set(names)):
        bare = names
    words = [name.split("_") for name in bare]
    if _can_be_told_apart(words):
        words = _differing_words(words)
    return [_shortened("_".join(parts)) for parts in words]


def _can_be_told_apart(words):
    """Whether the names have equally many words, and do not all have the same."""
    return len(set(map(len, words))) == 1 and len(set(map(tuple, words))) > 1


def _differing_words(words):
    """The words at places at which they differ, without the KEY- that all share."""
    columns = []
    for column in zip(*words):
        if len(set(column)) > 1:
            start = os.path.commonprefix(column).rfind("-") + 1
            columns.append([word[start:] for word in column])
    return list(zip(*columns))


def _shortened(name):
    if len(name) <= LONGEST:
        return name
    half = LONGEST // 2
    start = name[:half - 1].rstrip("-_. ")
    end = name[2 - half:].lstrip("-_. ")
    return f"{start}...{end}"


def _short(key, texts):
    """The values of one option, reduced to the differences between them."""
    if key not in PARTS:
        return [f"{key.replace('_', ' ')} {text}" for text in texts]
    parts = [split(text) for text in texts]
    names = [name for name, _ in parts]
    if len(set(names)) == 1:
        own = [_own_options(rest, parts, name) for name, rest in parts]
        return [mine or f"{text} as usual" for mine, text in zip(own, texts)]
    if len(set(names)) < len(set(texts)):
        names = [_with_options(name, _own_options(rest, parts, name)) for name, rest in parts]
    return [_part_label(key, name) for name in names]


def _with_options(name, own_options):
    if not own_options:
        return name
    return f"{name}:{own_options}"


def _part_label(key, name):
    if name == "none":
        return f"{key} none"
    return name


def _own_options(rest, parts, name):
    """Options of a part that are not in all the ``parts`` of that ``name``."""
    kin = [set(other.split(",")) for other_name, other in parts if other_name == name]
    common = set.intersection(*kin)
    return ",".join(item for item in rest.split(",") if item not in common)


def _distinct(stems):
    """The names, with a number behind each that occurs several times."""
    totals, count, names = Counter(stems), Counter(), []
    for stem in stems:
        count[stem] += 1
        if totals[stem] > 1:
            names.append(f"{stem} ({count[stem]})")
        else:
            names.append(stem)
    return names
