"""A run that was asked for some rounds and then for more is the run that was asked for all of them at once."""

import inspect
import sys

import pytest

from fedmpi import catalog
from fedmpi.plugins.spec import load, make
from fedmpi.build import extend
from fedmpi.core.parts import Round
from fedmpi.store import RunFile, checkpoint_folder, checkpoints, read_run

SMALL = ("--dataset", "synthetic:samples=200,size=8", "--model", "logistic", "--clients", 4, "--local-epochs", 1,
         "--noise", "none", "--save-every", 1)
STATIC = ("--strategy", "fedavg", "--pruner", "static")


def trained(fedmpi, out, *options, code=0):
    return fedmpi(1, "train", *SMALL, *options, "--out", out, code=code)


@pytest.mark.parametrize("options, again", [
    (STATIC, ""),
    # its mask first moves in round 5
    (("--strategy", "fedavg", "--pruner", "rigl:every=5", "--codec", "sign"), ""),
    # the last round moves no mask, and has an evaluation
    (("--strategy", "fedavg", "--pruner", "set"), "round 2 is played again"),
    (("--strategy", "prunefl", "--pruner", "prunefl:every=2"), "round 2 is played again"),
    ((*STATIC, "--evaluate-every", 3), "round 2 is played again"),
    ((*STATIC, "--contribution", "or-shapley"), "round 2 is played again"),
    (("--strategy", "thesis", "--pruner", "static", "--weighting", "thesis:schedule=thesis"), ""),
    ((*STATIC, "--devices", "drawn", "--timing", "fedbuff:buffer=2", "--cohort", 2), "")])
def test_two_rounds_extended_to_four_are_four_rounds(fedmpi, tmp_path, options, again):
    extended, whole = tmp_path / "extended.h5", tmp_path / "whole.h5"
    trained(fedmpi, extended, *options, "--rounds", 2)
    told = fedmpi(1, "train", "--resume", extended, "--rounds", 4)
    assert again in told and ("is played again" in told) == bool(again)
    trained(fedmpi, whole, *options, "--rounds", 4)
    assert "agree" in fedmpi(1, "verify", extended, whole)
    run = read_run(extended)
    assert run.attrs["status"] == "finished" and run.attrs["options"]["rounds"] == 4
    assert [each["rounds"] for each in run.sessions] == [2, 4]


def test_a_run_that_ends_while_it_is_extended_goes_on_to_the_same_bits(fedmpi, tmp_path, monkeypatch):
    extended, whole = tmp_path / "extended.h5", tmp_path / "whole.h5"
    options = ("--strategy", "fedavg", "--pruner", "set")
    trained(fedmpi, extended, *options, "--rounds", 3)
    append = RunFile.append

    def broken_off(store, *rows):
        append(store, *rows)
        raise RuntimeError("broken off")

    with monkeypatch.context() as patch:
        patch.setattr(RunFile, "append", broken_off)
        # Round 3 is played again, and its row is there; its checkpoint is not.
        fedmpi(1, "train", "--resume", extended, "--rounds", 5, "--save-every", 10, code=1)
    assert len(read_run(extended).ends) == 3
    assert [round for round, _ in checkpoints(checkpoint_folder(extended))] == [2]
    fedmpi(1, "train", "--resume", extended)
    trained(fedmpi, whole, *options, "--rounds", 5)
    assert "agree" in fedmpi(1, "verify", extended, whole)


def test_show_tells_that_a_run_was_extended(fedmpi, tmp_path):
    out = tmp_path / "a.h5"
    trained(fedmpi, out, *STATIC, "--rounds", 1)
    assert "extended" not in fedmpi(1, "show", out)
    fedmpi(1, "train", "--resume", out, "--rounds", 2)
    told = fedmpi(1, "show", out)
    assert "extended    from 1 to 2 rounds, resumed after round 1" in told and "2 of 2 rounds" in told


def test_a_run_that_was_stopped_takes_more_rounds_or_fewer(fedmpi, tmp_path):
    longer, shorter, whole = (tmp_path / f"{name}.h5" for name in ("longer", "shorter", "whole"))
    for out in (longer, shorter):
        trained(fedmpi, out, *STATIC, "--rounds", 4, "--until", 1)
    fedmpi(1, "train", "--resume", longer, "--rounds", 5)
    fedmpi(1, "train", "--resume", shorter, "--rounds", 2)
    for out, rounds in ((longer, 5), (shorter, 2)):
        whole.unlink(missing_ok=True)
        trained(fedmpi, whole, *STATIC, "--rounds", rounds)
        assert "agree" in fedmpi(1, "verify", out, whole)


@pytest.mark.parametrize("options, name, first", [
    (("--strategy", "fedavg", "--pruner", "rigl:every=1"), "--pruner rigl:every=1", "round 1"),
    (("--strategy", "thesis-text",), "--pruner residual", "the beginning"),
    (("--strategy", "thesis", "--pruner", "adaptive:every=1"), "--pruner adaptive:every=1", "round 1"),
    (("--strategy", "fedavg", "--pruner", "set", "--keep", 1), "--pruner set", "round 2")])
def test_a_schedule_that_depends_on_the_end_is_named(fedmpi, tmp_path, options, name, first):
    out = tmp_path / "a.h5"
    trained(fedmpi, out, *options, "--rounds", 2)
    told = fedmpi(1, "train", "--resume", out, "--rounds", 4, code=2)
    assert told.count("\n") == 1 and f"{name}" in told and f"from {first} on" in told
    run = read_run(out)
    assert len(run.ends) == 2 and run.attrs["status"] == "finished" and run.attrs["options"]["rounds"] == 2


def test_rounds_are_not_taken_back(fedmpi, tmp_path):
    out = tmp_path / "a.h5"
    trained(fedmpi, out, *STATIC, "--rounds", 2)
    told = fedmpi(1, "train", "--resume", out, "--rounds", 1, code=2)
    assert told.count("\n") == 1 and "has 2 rounds" in told and "--until" in told


FADING = '''"""Dense, but for what it looks at."""

from functools import partial

from fedmpi.methods.pruning.dense import dense


def fading():
    """Looks at the end."""
    whole = dense()

    def evolve(state, mask, x, replies, now, gen):
        return state, mask if now.t < now.rounds else mask

    return whole._replace(evolve=evolve)


def honest():
    """Says what it looks at."""
    return fading()._replace(planned=lambda now: 0)


bound = partial(fading)
'''


def test_a_plug_in_that_looks_at_the_end_says_what_it_makes_of_it(fedmpi, tmp_path, monkeypatch):
    (tmp_path / "fading_pruner.py").write_text(FADING)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("fading_pruner", None)
    for name, code in (("fading", 2), ("bound", 2), ("honest", 0)):
        out = tmp_path / f"{name}.h5"
        trained(fedmpi, out, "--strategy", "fedavg", "--pruner", f"fading_pruner:{name}", "--rounds", 1)
        told = fedmpi(1, "train", "--resume", out, "--rounds", 2, code=code)
        assert ("planned(now)" in told) == (code == 2)


KINDS = ("strategy", "pruner", "contribution", "weighting", "fault")
PARTS = [(kind, name) for kind in KINDS for name in catalog.KINDS[kind]]


@pytest.mark.parametrize("kind, name", PARTS)
def test_a_part_that_looks_at_the_number_of_rounds_says_so(kind, name):
    table = catalog.KINDS[kind]
    source = inspect.getsource(inspect.getmodule(load(table, name)))
    planned = make(table, name).planned
    assert extend.looks_at_rounds(source) == (planned is not None)
    assert planned is None or planned(Round(3, 6)) == planned(Round(3, 6))


@pytest.mark.parametrize("planned, last, first", [
    (lambda now: now.t == now.rounds, 2, 2), (lambda now: now.t == now.rounds, 1, None),
    (lambda now: now.t / now.rounds, 2, 1), (lambda now: now.rounds, 0, 0)])
def test_the_first_round_that_is_another_one(planned, last, first):
    assert extend.first_apart(planned, 2, 4, last) == first


@pytest.mark.parametrize("saved, expected", [([2, 1], 1), ([3, 1], 1), ([1], 1), ([], 0)])
def test_a_run_goes_on_from_the_last_checkpoint_that_both_have(saved, expected):
    plans = {"--pruner x": lambda now: now.t == now.rounds}
    assert extend.common_round(plans, 2, 4, saved) == expected
