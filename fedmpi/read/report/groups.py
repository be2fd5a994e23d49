"""Groups of runs, alike but for the seed, named by the differences between the groups."""

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

# The characters of a name that fits beside a line.
LONGEST = 32
SEPARATORS = "-_. "
SEPARATORS_AND_DIGITS = SEPARATORS + "0123456789"


class Group(NamedTuple):
    """The runs of one set-up: ``tag`` A, B, ... in the order given, ``runs`` {path: Run}, each with
    its own seed."""

    tag: str
    label: str
    runs: dict


def grouped(runs):
    """The Groups of ``{path: Run}``.

    A run is alone if its group already has its seed, or if it records no options. Groups without an
    evaluated round come last, groups without any round behind them: pictures cannot show them, and
    keep the colours of all others."""
    set_ups = []
    for path, run in runs.items():
        home = next((set_up for set_up in set_ups if _belongs(run, set_up)), None)
        if home is None:
            home = {}
            set_ups.append(home)
        home[path] = run
    # A stable sort: otherwise the order is that of the runs.
    set_ups.sort(key=_furthest, reverse=True)
    options_of = [_effective(_first(set_up)) for set_up in set_ups]
    stems = [_stem(list(set_up)) for set_up in set_ups]
    labels = _labels(options_of, stems)
    groups = []
    for number, (label, members) in enumerate(zip(labels, set_ups)):
        groups.append(Group(_tag(number), label, members))
    return groups


def _first(set_up):
    """The first run of ``{path: Run}``."""
    return next(iter(set_up.values()))


def _furthest(set_up):
    """The largest ``_progress`` of a run of the set-up."""
    return max(_progress(run) for run in set_up.values())


def _progress(run):
    """(whether a round has been evaluated, whether there is one)."""
    rounds = evaluated(run, headline(run).name)
    return len(rounds) > 0, len(run.ends) > 0


def _belongs(run, set_up):
    """Whether the run is one more seed of the set-up ``{path: Run}``."""
    first = _first(set_up)
    if not options(run) or not options(first):
        return False
    seeds = {options(other).get("seed") for other in set_up.values()}
    if options(run).get("seed") in seeds:
        return False
    if _effective(run) != _effective(first):
        return False
    return not settings.changes(_parts(first), _parts(run))


def _parts(run):
    """The record of each part in the run file; old files have none."""
    return run.attrs.get("parts") or []


def _effective(run):
    """The options that decide the result; options missing in an old file are as by default."""
    recorded = options(run)
    if not recorded:
        return {}
    complete = DEFAULTS | recorded
    ignored = WHERE | {"seed"}
    return {key: value for key, value in complete.items() if key not in ignored}


def find_group(groups, name, what):
    """The number of the Group with this ``name``: its label, its letter, or one of its run files.

    UserError, which begins with ``what``, if no group has it."""
    by_label = [group.label == name for group in groups]
    by_tag = [group.tag == name for group in groups]
    by_run = [_has_run(group, name) for group in groups]
    for is_meant in (by_label, by_tag, by_run):
        if sum(is_meant) == 1:
            return is_meant.index(True)
    reason = "is none of the set-ups, nor a run of one"
    if any(by_label + by_tag + by_run):
        reason = "names several set-ups"
    listed = "; ".join(f"{group.tag} {group.label}" for group in groups)
    raise UserError(f"{what} {name} {reason}: there are {listed}")


def _has_run(group, name):
    return any(_is_called(path, name) for path in group.runs)


def _is_called(path, name):
    file = os.path.basename(path)
    stem = os.path.splitext(file)[0]
    if name in (path, file, stem):
        return True
    return os.path.realpath(path) == os.path.realpath(name)


def differing(groups):
    """``{option: [its text in each group]}`` of the differing options. Then, by part, options given
    alike that differ nevertheless: a default has changed, or a plug-in's source."""
    runs = [_first(group.runs) for group in groups]
    in_options = _differing([_effective(run) for run in runs])
    in_parts = _differing_parts([_parts(run) for run in runs])
    return in_options | in_parts


def _differing_parts(parts_of):
    """The same of the ``parts_of`` each group's first run."""
    changed = set()
    for before, after in itertools.combinations(parts_of, 2):
        for part, key, *_ in settings.changes(before, after):
            changed.add((part, key))
    values_of = [settings.values(parts) for parts in parts_of]
    texts = {}
    for place in sorted(changed):
        part, key = place
        texts[f"{part}: {key}"] = [values.get(place, "-") for values in values_of]
    return texts


def _differing(options_of):
    """``{option: [its texts]}`` of the options without one common text in all dicts."""
    keys = dict.fromkeys(itertools.chain(*options_of))
    differing_texts = {}
    for key in keys:
        texts = [option_text(options.get(key)) for options in options_of]
        if len(set(texts)) > 1:
            differing_texts[key] = texts
    return differing_texts


def unusual(run):
    """``{option: (its text, the default's)}`` of the unusual options: not as by default, and not as
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
    """No noise, unless the data set may be the demonstration's with noise of its own."""
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
    common = os.path.commonprefix(stems)
    # run-1 and run-12 have run-1 in common.
    return common.rstrip(SEPARATORS_AND_DIGITS) or stems[0]


def _labels(options_of, stems):
    """A name for each group: the fewest options to tell all apart, else the names of their
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
    """Up to three options with texts to tell all groups apart, or None."""
    # More options would not fit beside a line.
    for size in (1, 2, 3):
        for keys in itertools.combinations(texts_of, size):
            combined = set(zip(*(texts_of[key] for key in keys)))
            if len(combined) == num_groups:
                return keys
    return None


def _brief(names):
    """Names that fit beside a line; all as they are if all fit.

    Names of a sweep or a study are KEY-VALUE joined by _: only differing values are kept. Names
    still too long lose their middle."""
    if max(map(len, names)) <= LONGEST:
        return names
    bare = [name.rstrip(SEPARATORS_AND_DIGITS) for name in names]
    if len(set(bare)) < len(set(names)):
        bare = names
    words = [name.split("_") for name in bare]
    if _can_be_told_apart(words):
        words = _differing_words(words)
    return [_shortened("_".join(parts)) for parts in words]


def _can_be_told_apart(words):
    """Whether the names have equally many words, and do not all have the same."""
    lengths = {len(parts) for parts in words}
    distinct = {tuple(parts) for parts in words}
    return len(lengths) == 1 and len(distinct) > 1


def _differing_words(words):
    """The words at differing places, without their common KEY-."""
    columns = []
    for column in zip(*words):
        if len(set(column)) > 1:
            start = os.path.commonprefix(column).rfind("-") + 1
            columns.append([word[start:] for word in column])
    return list(zip(*columns))


def _shortened(name):
    if len(name) <= LONGEST:
        return name
    # Three points go between the halves.
    half = LONGEST // 2
    start = name[:half - 1].rstrip(SEPARATORS)
    end = name[2 - half:].lstrip(SEPARATORS)
    return f"{start}...{end}"


def _short(key, texts):
    """The values of one option, reduced to the differences between them."""
    if key not in PARTS:
        return [f"{key.replace('_', ' ')} {text}" for text in texts]
    parts = [split(text) for text in texts]
    names = [name for name, _ in parts]
    own_options = [_own_options(rest, parts, name) for name, rest in parts]
    num_names = len(set(names))
    if num_names == 1:
        return [own or f"{text} as usual" for own, text in zip(own_options, texts)]
    # Names alone may not tell all values apart.
    if num_names < len(set(texts)):
        names = list(map(_with_options, names, own_options))
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
    """Options of a part, but for those of all ``parts`` of this ``name``."""
    of_same_name = [set(other.split(",")) for other_name, other in parts if other_name == name]
    common = set.intersection(*of_same_name)
    own = [item for item in rest.split(",") if item not in common]
    return ",".join(own)


def _distinct(stems):
    """The names, with a number behind repeated ones."""
    totals = Counter(stems)
    so_far = Counter()
    names = []
    for stem in stems:
        so_far[stem] += 1
        if totals[stem] > 1:
            names.append(f"{stem} ({so_far[stem]})")
        else:
            names.append(stem)
    return names
