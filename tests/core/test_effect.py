"""Options without effect: refused within a part, told by it where the rest of the run leaves them none."""

import contracts
import pytest
import torch

from fedmpi import catalog
from fedmpi.plugins.spec import make
from fedmpi.build.notes import warnings
from fedmpi.core.effect import needs
from fedmpi.core.errors import UserError


def warned(**options):
    """The warnings of a small run, before anything is trained."""
    return list(warnings(contracts.small(**options)))


@needs(cap="by=class", period="daily=true", a="how!=constant", both=("by=class", "daily=true"))
def part(by: str = "class", daily: bool = False, cap: float = 1.0, period: float = 1.0, how: str = "hinge",
         a: float = 0.5, both: int = 0):
    """A part."""
    return by, cap


@pytest.mark.parametrize("given, message", [
    ({"by": "client", "cap": 1.0}, "cap has no effect with by=client: it is for by=class; leave cap out"),
    ({"period": 1.0}, "period has no effect with daily=false: it is for daily=true; leave period out"),
    ({"how": "constant", "a": 0.5}, "a has no effect with how=constant; leave a out"),
    ({"both": 1}, "both has no effect with daily=false: it is for daily=true; leave both out")])
def test_an_option_is_refused_where_another_choice_leaves_it_no_effect(given, message):
    with pytest.raises(ValueError, match=message):
        part(**given)


def test_defaults_may_stand_beside_any_choice():
    assert part() == ("class", 1.0) and part(by="client") == ("client", 1.0)
    assert part(daily=True, period=2.0, cap=3.0, a=1.0, both=1) == ("class", 3.0)


@pytest.mark.parametrize("kind, spec", [
    ("partition", "dirichlet:by=client,cap=true"), ("partition", "dirichlet:sigma=0"),
    ("pruner", "prunefl:fixed=true,constant_s=2"), ("pruner", "set:end=0.75"),
    ("features", "rotation:quarter=true,shuffle=false"), ("fault", "free-rider:kind=stale,std=0.01"),
    ("devices", "drawn:period_h=24"), ("devices", "drawn:diurnal=true,availability=0.5,slot_s=60"),
    ("timing", "fedasync:staleness=constant,a=0.5"), ("timing", "fedasync:b=4")])
def test_parts_refuse_what_their_other_options_leave_no_effect(kind, spec):
    with pytest.raises(UserError, match=f"{spec}: .* has no effect with .*; leave .* out"):
        make(catalog.KINDS[kind], spec)


@pytest.mark.parametrize("pruner, last_still", [
    ("feddst:every=2,alpha=0.5", 2), ("prunefl:every=3", 3), ("rigl:every=2", 2), ("residual:every=3", 3),
    ("adaptive:every=2", 2), ("set:every=2", 2), ("set:every=2,decay=cosine", 2)])
def test_a_mask_that_never_moves_is_told_and_one_that_moves_is_not(pruner, last_still):
    """Against what is played: the least number of rounds in which it moves, and one less."""
    for rounds, moves in ((last_still, False), (last_still + 1, True)):
        model = "small-cnn:width=16"
        run, state = contracts.assembled(pruner=pruner, rounds=rounds, model=model)
        states, _ = contracts.run_rounds(run, state, rounds)
        moved = any(not torch.equal(state["mask"], after["mask"]) for after in states)
        told = [line for line in warned(pruner=pruner, rounds=rounds, model=model) if "never moves" in line]
        assert (moved, not told) == (moves, moves), (rounds, told)
    assert told == [] and warned(pruner=pruner, rounds=last_still)[0].startswith(
        f"--pruner {pruner}: the mask never moves in {last_still} rounds, as in static: every={last_still}")


@pytest.mark.parametrize("strategy, pruner", [
    ("feddst", "feddst"), ("prunefl", "prunefl"), ("thesis-code", "set"), ("thesis", "rigl")])
def test_a_strategys_usual_pruner_is_told_as_well(strategy, pruner):
    few = warned(strategy=strategy, pruner=None, contribution=None, rounds=3)
    many = warned(strategy=strategy, pruner=None, contribution=None, rounds=50)
    assert any(line.startswith(f"--pruner {pruner}") and "the mask never moves in 3 rounds" in line for line in few)
    assert not any("never moves" in line for line in many)


@pytest.mark.parametrize("pruner", [
    "set:fraction=0", "rigl:fraction=0,every=1", "feddst:alpha=0,every=1", "prunefl:decrease=0,every=1"])
def test_a_share_of_nothing_never_moves_a_mask(pruner):
    assert any("never moves" in line for line in warned(pruner=pruner))


@pytest.mark.parametrize("options, line", [
    ({"pruner": "feddst:every=2,after=2"}, "after=2 is beyond the 2 local epochs"),
    ({"strategy": "thesis:rho=0.1", "pruner": "static"}, "--strategy thesis:rho=0.1: no effect of rho"),
    ({"strategy": "trimmed-mean", "clients": 9}, "it cuts nobody"),
    ({"strategy": "krum", "clients": 4}, "it takes nobody for Byzantine"),
    ({"strategy": "multi-krum:select=3"}, "select=3 takes all of the 3 clients"),
    ({"strategy": "fedprox", "local_epochs": 1, "batch_size": 500}, "no effect of mu=0.01: clients take one step"),
    ({"contribution": "banzhaf:samples=50"}, "no effect of samples: up to limit=8 clients"),
    ({"contribution": "information-gain:permutations=9"}, "no effect of permutations"),
    ({"contribution": "tmc-shapley:permutations=50,change=0.1"}, "no effect of change: it is asked after window=100"),
    ({"contribution": "gtg-shapley:permutations=9,change=0.1"}, "no effect of change: it is asked after 30 orders"),
    ({"contribution": "comfedsv:rank=2"}, "no effect of rank: all clients take part in every round"),
    ({"contribution": "or-shapley", "weighting": "softmax:temperature=2"}, "too late for any weight"),
    ({"contribution": "or-shapley:every=8"}, "too late for any weight"),
    ({"contribution": "uniform", "weighting": "tanh"}, "--contribution uniform: all scores are equal"),
    ({"pruner": "feddst:every=2", "rounds": 3}, "the mask never moves"),      # a share of less than a weight
    ({"pruner": "rigl:every=2,distribution=uniform"}, "the paper's uniform keeps it dense"),
    ({"weighting": "thesis:gamma=1,start=zero"}, "no effect of start: with gamma=1 no score is mixed in"),
    ({"weighting": "relu:score_power=0,floor=0.1"}, "no effect of floor"),
    ({"pruner": "adaptive:every=2,spread=0,by=size"}, "with spread=0 all clients have the same sparsity"),
    ({"noise": "symmetric:share=0.1"}, "--noise symmetric:share=0.1 has no effect: no client has a changed label"),
    ({"features": "gaussian:sigma=0"}, "--features gaussian:sigma=0 has no effect: no client has a changed input"),
    ({"until": 8}, "--until 8 has no effect: the run ends after --rounds 8"),
    ({"contribution": "cosine", "observe": ["size", "cosine"]}, "--observe cosine is estimated already")])
def test_what_has_no_effect_in_this_run_is_told(options, line):
    told = warned(**options)
    assert len([each for each in told if line in each]) == 1, told


@pytest.mark.parametrize("options", [
    {"pruner": "feddst:every=2,after=1"}, {"strategy": "thesis:rho=0.2", "pruner": "feddst:every=2"},
    {"pruner": "rigl:every=2,distribution=first-dense"}, {"pruner": "static:distribution=uniform"},
    {"strategy": "thesis:rho=0.2", "pruner": "adaptive:every=2"}, {"strategy": "thesis", "pruner": "static"},
    {"strategy": "trimmed-mean:trim=0.4"}, {"strategy": "krum", "clients": 6}, {"strategy": "fedprox"},
    {"contribution": "banzhaf:samples=50,limit=2"}, {"contribution": "banzhaf"},
    {"contribution": "comfedsv:rank=2", "cohort": 2}, {"contribution": "or-shapley:every=4"},
    {"contribution": "size", "observe": ["or-shapley", "uniform"]}, {"strategy": "median", "contribution": None},
    {"noise": "symmetric"}, {"features": "gaussian"}, {"until": 7}])
def test_what_has_an_effect_is_not_told(options):
    told = warned(**options)
    assert [line for line in told if "takes one client's update" not in line] == []
