"""Schedules of the learning rate: their values, what they make of the number of rounds, and what training makes of
them."""

import contracts
import pytest
import torch

from fedmpi import catalog
from fedmpi.plugins.spec import make
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Facts, Round
from fedmpi.store import read_run

SPECS = [f"{name}:over={over},warmup={warmup}" for name in catalog.SCHEDULES for over in ("rounds", "steps", "run")
         for warmup in (1, 3)]


def made(spec):
    return make(catalog.SCHEDULES, spec)


def by_rounds(spec, rounds):
    return [made(spec).rate(Round(t, rounds), 0, 1) for t in range(1, rounds + 1)]


def by_steps(spec, steps):
    return [made(spec).rate(Round(2, 9), step, steps) for step in range(steps)]


@pytest.mark.parametrize("spec, expected", [
    ("constant", [1, 1, 1, 1]), ("constant:warmup=3", [.25, .5, .75, 1]), ("linear", [1, .75, .5, .25]),
    ("linear:final=0.5", [1, .875, .75, .625]), ("linear:warmup=2", [1 / 3, 2 / 3, 1, .5]),
    ("step:every=2,factor=0.5", [1, 1, .5, .5]), ("step:every=1,factor=0.5,warmup=1", [.5, 1, .5, .25]),
    ("cosine", [1, .5 + .5 ** 1.5, .5, .5 - .5 ** 1.5]), ("cosine:final=0.2,warmup=2", [1 / 3, 2 / 3, 1, .6])])
def test_the_values_by_hand(spec, expected):
    assert by_rounds(spec, 4) == pytest.approx(expected)
    over_steps = spec + (",over=steps" if ":" in spec else ":over=steps")
    if spec != "constant":
        assert by_steps(over_steps, 4) == pytest.approx(expected)


@pytest.mark.parametrize("spec", SPECS)
def test_a_schedule_says_what_it_makes_of_the_number_of_rounds(spec):
    """Where the same round has another factor in a longer run, ``planned`` tells the two apart, and only there."""
    part = made(spec)
    for t in range(1, 7):
        short, long = Round(t, 6), Round(t, 12)
        same = [part.rate(short, step, 5) for step in range(5)] == [part.rate(long, step, 5) for step in range(5)]
        assert same == (part.planned(short) == part.planned(long))


@pytest.mark.parametrize("spec", SPECS)
def test_a_schedule_says_whether_it_looks_at_steps(spec):
    part = made(spec)
    moves = len({part.rate(Round(2, 6), step, 9) for step in range(9)}) > 1
    assert part.within == ("rounds" not in spec) and moves <= part.within


@pytest.mark.parametrize("spec", ["cosine:final=0.1,warmup=3", "linear", "step:every=5,factor=0.5",
                                  "constant:warmup=9"])
def test_over_the_run_steps_count_through_all_rounds(spec):
    """Three rounds of four steps are as one round of twelve."""
    run = made(spec + (",over=run" if ":" in spec else ":over=run"))
    in_rounds = [run.rate(Round(t, 3), step, 4) for t in (1, 2, 3) for step in range(4)]
    assert in_rounds == [run.rate(Round(1, 1), step, 12) for step in range(12)]
    assert in_rounds == by_steps(spec + (",over=steps" if ":" in spec else ":over=steps"), 12)


def test_an_endless_warm_up_is_told():
    facts = Facts(None, rounds=5, steps=3)
    assert list(made("constant:warmup=4").notes(facts)) == []
    assert "not over by the end of the 5 rounds" in list(made("constant:warmup=5").notes(facts))[0]
    assert "not over by the end of the 3 steps" in list(made("cosine:warmup=3,over=steps").notes(facts))[0]
    assert list(made("cosine:warmup=14,over=run").notes(facts)) == []
    assert "not over by the end of the 15 steps" in list(made("cosine:warmup=15,over=run").notes(facts))[0]


@pytest.mark.parametrize("spec, message", [
    ("step:every=0", "every must be"), ("step:factor=0", "factor must be"), ("cosine:final=2", "final must be"),
    ("linear:warmup=-1", "warmup must be"), ("constant:over=steps", "over has no effect with warmup=0")])
def test_impossible_options_are_refused(spec, message):
    with pytest.raises(UserError, match=message):
        made(spec)


# --- rounds ---

SMALL = ("--dataset", "synthetic:samples=60,size=4", "--model", "logistic", "--clients", 3, "--strategy", "fedavg",
         "--lr", 0.5)


def test_each_round_records_its_learning_rate(fedmpi, tmp_path):
    out = tmp_path / "run.h5"
    fedmpi(1, "train", *SMALL, "--rounds", 4, "--schedule", "linear:warmup=1", "--out", out)
    assert read_run(out).rounds["lr"].tolist() == pytest.approx([0.25, 0.5, 0.5 * 2 / 3, 0.5 / 3])
    fedmpi(1, "train", *SMALL, "--rounds", 2, "--schedule", "linear:over=steps", "--out", tmp_path / "steps.h5")
    assert read_run(tmp_path / "steps.h5").rounds["lr"].tolist() == [0.5, 0.5]


def test_a_scheduled_round_is_a_round_at_that_rate():
    """Falling by half after round 1: round 1 is that of --lr, and round 2 moves less."""
    (first, second), rows = contracts.run_rounds(*contracts.assembled(lr=0.1, schedule="step:every=1,factor=0.5"), 2)
    (constant, other), _ = contracts.run_rounds(*contracts.assembled(lr=0.1), 2)
    assert [row["lr"] for row in rows] == [0.1, 0.05]
    assert torch.equal(first["x"], constant["x"]) and not torch.equal(second["x"], other["x"])
    ends = [step["x"] - first["x"] for step in (second, other)]
    assert float(ends[0].norm()) < 0.8 * float(ends[1].norm())


@pytest.mark.parametrize("schedule, code", [("step:every=2", 0), ("cosine", 2), ("cosine:over=steps", 0),
                                            ("cosine:over=run", 2)])
def test_a_run_is_extended_where_no_schedule_depends_on_its_end(fedmpi, tmp_path, schedule, code):
    out = tmp_path / "run.h5"
    fedmpi(1, "train", *SMALL, "--rounds", 2, "--schedule", schedule, "--out", out)
    told = fedmpi(1, "train", "--resume", out, "--rounds", 4, code=code)
    assert (f"--schedule {schedule} depends on the number of rounds" in told) == (code == 2)
