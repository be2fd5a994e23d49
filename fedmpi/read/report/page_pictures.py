"""Grids of pictures on a report page."""

from fedmpi.read.headline import common_headline
from fedmpi.read.report.html import picture
from fedmpi.read.report.kinds import PICTURES
from fedmpi.read.report.kinds.picture import capitalized
from fedmpi.read.report.series import runs_of

# {} stands for the name of the metric.
TITLES = {
    "accuracy": "{} by round",
    "accuracy-bytes": "{} by bytes sent",
    "accuracy-flops": "{} by training FLOPs",
    "accuracy-virtual": "{} by virtual time",
    "own": "{} on clients' own tests",
    "own-clients": "Clients from the worst to the best",
    "loss": "Loss by round",
    "sparsity": "Sparsity by round",
    "churn": "How the mask moved",
    "layers": "Sparsity by layer",
    "contribution": "Contribution by round",
    "found": "Who finds the bad clients",
    "truth": "Contribution against the truth",
    "clients": "Who holds what",
    "time": "Time by phase",
    "answers": "What became of those asked",
}


def pictures(names, groups, count):
    """HTML of the kinds ``names`` of pictures of Groups, numbered by the iterator ``count``.

    Kinds without recorded numbers are left out."""
    return _grid(names, groups, runs_of(groups), count)


def run_pictures(names, run, count):
    """The same of one run, for kinds about a single run."""
    return _grid(names, run, [run], count)


def _grid(names, subject, runs, count):
    word = capitalized(common_headline(runs).word)
    figures = []
    for name in names:
        numbers = PICTURES[name].find(subject)
        if numbers is not None:
            title = TITLES[name].format(word)
            figures.append(picture(next(count), title, PICTURES[name], numbers))
    if not figures:
        return ""
    return f'<div class="pictures">{"".join(figures)}</div>'
