"""The options of the runs on a report page, and their machines and versions."""

from fedmpi.read.report.comparison import comparison
from fedmpi.read.report.groups import option_text, unusual
from fedmpi.read.report.html import Cell, fold, table, text
from fedmpi.read.report.page_numbers import group_name
from fedmpi.read.report.series import runs_of
from fedmpi.read.report.truth import options


def options_of(groups):
    """HTML: differing options, options unlike the defaults, then all."""
    runs = runs_of(groups)
    differ = {}
    if len(groups) > 1:
        differ = comparison(groups)["differ"]
    parts = [_differing_table(groups, differ), _unusual_table(runs, differ)]
    if len(runs) == 1:
        parts.append(record(runs[0]))
    return "".join(parts)


def _differing_table(groups, differ):
    if not differ:
        return ""
    names = [group_name(number, group) for number, group in enumerate(groups)]
    rows = [[name, *texts] for name, texts in differ.items()]
    return table("What differs between them", ["option", *names], rows, wide=True)


def _unusual_table(runs, differ):
    """Options alike in all runs, but not as by default."""
    common = _unusual_in_all(runs, differ)
    if not common:
        subject = "Else all" if differ else "All"
        return f"<p>{subject} options are as by default.</p>"
    caption = "What is not as by default"
    if len(runs) > 1:
        caption += ", in all of them"
    rows = [[name, *texts] for name, texts in common.items()]
    return table(caption, ["option", "value", "default"], rows, quiet=(2,))


def _unusual_in_all(runs, differ):
    """``{option: (its text, the default's)}``. The seed counts on a page about one run only."""
    first, *others = [unusual(run) for run in runs]
    common = {}
    for name, texts in first.items():
        if name in differ or name == "seed":
            continue
        if all(other.get(name) == texts for other in others):
            common[name] = texts
    seed = options(runs[0]).get("seed")
    if seed and not others:
        common["seed"] = (option_text(seed), "0")
    return common


def record(run, kind="printed"):
    """HTML of all options, and of the run's machines and versions, to unfold."""
    parts = ""
    if options(run):
        parts = fold("All options", f'<div class="folded">{_all_options(run)}</div>', kind=kind)
    return parts + fold("Command, versions, machines", _provenance(run.attrs), kind=kind)


def _all_options(run):
    rows = [[name, option_text(value)] for name, value in options(run).items()]
    return table("", ["option", "value"], rows)


def _provenance(attrs):
    values = {
        "command": _code(attrs.get("command")),
        "created": attrs.get("created", ""),
        "ended": attrs.get("ended", ""),
        "hosts": option_text(attrs.get("hosts")),
        "ranks": attrs.get("ranks", ""),
        "launcher": attrs.get("launcher", ""),
        "commit": attrs.get("git_commit", ""),
        "versions": _versions_text(attrs.get("versions")),
        "weights": _weights_text(attrs),
        "data digest": _code(attrs.get("data_digest")),
    }
    # Unrecorded values are left out.
    rows = [[name, value] for name, value in values.items() if value != ""]
    return table("", ["what", "value"], rows)


def _code(value):
    """A text in the font of commands; empty for none."""
    if not value:
        return ""
    return Cell(f"<code>{text(value)}</code>")


def _versions_text(versions):
    if not isinstance(versions, dict):
        return ""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _weights_text(attrs):
    if not {"weights", "prunable"} <= attrs.keys():
        return ""
    return f"{attrs['weights']:,}, of which {attrs['prunable']:,} may be pruned"
