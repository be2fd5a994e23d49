"""Every kind of picture of a run or of several, by name.

A kind finds its numbers, draws them, and puts the same numbers into words, so that a page, a paper
and a screen reader tell the same. Each kind has a file of its own.
"""

from fedmpi.read.report.draw import names_above
from fedmpi.read.report.kinds import (answers, churn, contribution, holdings, layers, own_clients,
                                      phases, recovery, truth)
from fedmpi.read.report.kinds.curves import (HEADLINE, OWN_TESTS, Curves, draw_curves, find_curves,
                                             names_of_curves, say_curves, say_sparsity)
from fedmpi.read.report.kinds.picture import Picture

__all__ = ["PICTURES", "Curves", "Picture"]


def _curve(line, column, axis, say=say_curves):
    return Picture(line, find_curves(column, axis), draw_curves, say, names=names_of_curves)


def _of_a_run(line, module, **more):
    """The Picture that a module describes by its ``find``, ``draw`` and ``say``: one run a picture."""
    return Picture(line, module.find, module.draw, module.say, each=True, **more)


PICTURES = {
    "accuracy": _curve(
        "test accuracy, or the headline of another task, against rounds; of one run also of the validation set",
        HEADLINE, "rounds"),
    "accuracy-bytes": _curve("test accuracy against bytes sent, up and down", HEADLINE, "bytes"),
    "accuracy-flops": _curve("test accuracy against training FLOPs", HEADLINE, "flops"),
    "accuracy-virtual": _curve(
        "test accuracy against virtual time, where --devices simulates it", HEADLINE, "virtual"),
    "accuracy-seconds": _curve("test accuracy against the rounds' own seconds", HEADLINE, "seconds"),
    "own": _curve(
        "accuracy on clients' own test parts against rounds; of one set-up also of the worst tenth",
        OWN_TESTS, "rounds"),
    "own-clients": _of_a_run(
        "accuracy of each client on its own test part, from the worst to the best", own_clients),
    "loss": _curve("test loss against rounds", "loss", "rounds"),
    "sparsity": _curve("sparsity by round", "sparsity", "rounds", say_sparsity),
    "churn": Picture(
        "share of the mask that each round flipped", churn.find, churn.draw, churn.say, names=names_above),
    "layers": _of_a_run("sparsity of each layer by round", layers),
    "contribution": _of_a_run("contributions by round, of good and bad clients", contribution),
    "found": _of_a_run(
        "how well each estimator's scores rank the clients' true quality, by round", recovery),
    "truth": _of_a_run(
        "contribution in the last quarter of the rounds against what is true of the client", truth),
    "clients": _of_a_run(
        "who holds which classes, how many samples, and what is wrong with whom", holdings, size=holdings.size),
    "time": _of_a_run("where the time of the rounds went, by phase", phases, size=phases.size),
    "answers": _of_a_run("clients asked, merged, late, lost, by round", answers),
}
