"""Parts are made once, and asked before work starts whether they can work in this run."""

from collections import Counter

import contracts
import pytest

from fedmpi.build import parts
from fedmpi.build.facts import parts_with_facts
from fedmpi.build.options import DEFAULTS
from fedmpi.catalog import KINDS
from fedmpi.core.parts import Facts
from fedmpi.plugins import factories
from fedmpi.plugins.spec import make

OPTIONS = DEFAULTS | contracts.SMALL | {
    "optimiser": "sgd", "augment": ["flip"], "pruner": "rigl:every=2", "contribution": "cosine",
    "observe": ["loo", "loo:of=accuracy"], "validation": 0.2,
    "weighting": "relu", "fault": ["scaled:share=0.4", "label-flip:share=0.4"], "features": "gaussian", "rounds": 2}
NOT_GIVEN = ("out", "server_model", "init_from", "silence", "task_limit")
ARGUMENTS = [word for name, value in OPTIONS.items() for each in (value if isinstance(value, list) else [value])
             if name not in NOT_GIVEN for word in (f"--{name.replace('_', '-')}", str(each))]
# Noise, devices and adapters are all called none, and loo is named by two specs.
ONCE = Counter({
    "synthetic": 1, "iid": 1, "none": 3, "gaussian": 1, "scaled": 1, "label_flip": 1, "fedavg": 1, "sgd": 1,
    "constant": 1, "classification": 1, "flip": 1, "rigl": 1, "cosine": 1, "loo": 2, "relu": 1, "float32": 1,
    "uniform": 1, "sync": 1})


@pytest.fixture
def calls(monkeypatch):
    """How often each factory was called, by its name."""
    counted, load = Counter(), factories.load

    def counting(module, function):
        factory = load(module, function)

        def called(*arguments, **options):
            counted[function] += 1
            return factory(*arguments, **options)

        return called

    monkeypatch.setattr(factories, "load", counting)
    return counted


def test_a_run_in_one_process_makes_each_part_once_and_a_model_for_each_rank(fedmpi, tmp_path, calls):
    fedmpi(1, "train", *ARGUMENTS, "--out", tmp_path / "run.h5")
    assert calls == ONCE | Counter(small_cnn=2)


def test_a_run_that_goes_on_makes_no_part_twice(fedmpi, tmp_path, calls):
    fedmpi(1, "train", *ARGUMENTS, "--until", 1, "--out", tmp_path / "run.h5")
    calls.clear()
    fedmpi(1, "train", "--resume", tmp_path / "run.h5", "--rounds", 3)
    assert calls == ONCE | Counter(small_cnn=2)


def test_a_plan_makes_each_part_once_and_a_model_for_rank_0_and_each_try(fedmpi, calls):
    fedmpi(1, "train", *ARGUMENTS, "--dry-run")
    model = calls.pop("small_cnn")
    assert calls == ONCE and 2 <= model <= 4


def test_a_worker_makes_what_it_trains_with_and_nothing_else(calls):
    made = parts.of_worker(OPTIONS)
    lacking = {name for name in made._fields if getattr(made, name) is None}
    assert lacking == {"dataset", "partition", "noise", "adapters", "weighting", "sampler", "devices", "timing"}
    assert calls == Counter(fedavg=1, rigl=1, cosine=1, loo=2, float32=1, gaussian=1, scaled=1, label_flip=1, sgd=1,
                            constant=1, classification=1, flip=1)


def test_what_nobody_named_is_decided_and_what_is_named_stays():
    open_options = {"pruner": None, "contribution": None, "strategy": "feddst"}
    options, made = parts.made(DEFAULTS | contracts.SMALL | open_options)
    assert (options["pruner"], options["contribution"], options["weighting"]) == ("feddst", "size", "size")
    assert made.pruner.moves and list(made.contributions) == ["size"]
    options, _ = parts.made(DEFAULTS | contracts.SMALL | {"weighting": "softmax"}, made.dataset)
    assert options["weighting"] == "softmax"


# ---------------------------------------------------------------- what a part may know


def facts_of(option, **options):
    """The ``Facts`` that the part of an option is asked with, in a small run."""
    options, made, data, network, *_ = contracts.small(**options)
    found = {said.partition(" ")[0]: facts for said, _, facts in parts_with_facts(options, made, data, network.layout)}
    return found[f"--{option}"]


@pytest.mark.parametrize("options, known", [
    ({}, {"asynchronous": False, "timed": False, "common_model": True, "everybody": True,
          "own_masks": False, "pruner_reports": False, "needs_previous": False, "clients": 3, "cohort": 3, "largest": 3,
          "drawn": 3, "at_work": 3, "fixed_cohort": False, "opening": False, "candidates": False, "ids": False}),
    ({"cohort": 2}, {"everybody": False, "cohort": 2, "drawn": 2, "at_work": 2, "fixed_cohort": True, "largest": 2}),
    ({"cohort": 2, "contribution": "comfedsv"}, {"opening": True, "largest": 3, "cohort": 2}),
    ({"devices": "drawn", "timing": "fedbuff:buffer=2,concurrency=1"},
     {"asynchronous": True, "timed": True, "cohort": 2, "at_work": 1, "drawn": 1, "everybody": False,
      "own_masks": True}),
    ({"pruner": "rigl"}, {"pruner_reports": True, "own_masks": False}),
    ({"pruner": "feddst"}, {"own_masks": True, "common_model": True}),
    ({"pruner": "adaptive:groups=1"}, {"own_masks": True, "common_model": False}),
    ({"weighting": "uniform"}, {"even": True}), ({"weighting": "relu"}, {"even": False}),
    ({"fault": ["free-rider:kind=stale"]}, {"needs_previous": True}),
    ({"sampler": "power-of-choice"}, {"candidates": True}),
    ({"sampler": "power-of-choice:remembered=true"}, {"candidates": False}),
    ({"strategy": "fltrust"}, {"server_update": True}),
    ({"optimiser": "sgd:momentum=0.9"}, {"linear_steps": True, "optimiser_state": ("velocity",), "clipped": False}),
    ({"optimiser": "adam"}, {"linear_steps": False, "optimiser_state": ("mean", "square", "steps")}),
    ({"clip_norm": 1.0}, {"clipped": True}),
    ({"local_steps": 3}, {"same_steps": True}), ({"partition": "quantity", "batch_size": 1}, {"same_steps": False}),
    ({}, {"headline": "accuracy", "usual_loss": True, "pruned_apart": False}),
    ({"dataset": "synthetic:samples=99,size=4,targets=values", "task": "regression"},
     {"headline": "mae", "usual_loss": False}),
    ({"pruner": "feddst"}, {"pruned_apart": True}), ({"pruner": "adaptive:groups=1"}, {"pruned_apart": True}),
    ({"devices": "drawn", "timing": "fedbuff:buffer=2,concurrency=1"}, {"pruned_apart": False})])
def test_facts_follow_from_the_parts(options, known):
    facts = facts_of("strategy", **options)
    assert {name: getattr(facts, name) for name in known} == known


def test_each_part_is_told_what_is_its_own():
    options = {"features": "gaussian", "fault": ["scaled:share=0.4,factor=2"], "observe": ["loo"], "validation": 0.2}
    assert facts_of("fault", **options).touched == 1 and facts_of("features", **options).touched == 2
    assert facts_of("fault", **options).user_options == {"share", "factor"}
    assert facts_of("features", **options).user_options == set()
    assert facts_of("contribution", weighting="relu", **options).scored
    assert not facts_of("observe", weighting="relu", **options).scored
    assert facts_of("strategy", **options).named["pruner"] == "--pruner dense"


def test_every_part_of_the_catalogue_that_has_rules_is_asked():
    options, made, data, network, *_ = contracts.small(fault=["scaled"], observe=["size"], augment=["flip"])
    lines = [said for said, _, _ in parts_with_facts(options, made, data, network.layout)]
    ruled = {kind for kind in KINDS if kind not in ("dataset", "partition", "model", "task")}
    assert {said.split(" ")[0].removeprefix("--") for said in lines} == ruled | {"observe"}


# ---------------------------------------------------------------- rules of single parts


NAMED = {name: f"--{name} X" for name in (
    "pruner", "strategy", "weighting", "sampler", "contribution", "cohort", "optimiser", "task", "codec", "timing")}


def refusals(kind, spec, **facts):
    return list(make(KINDS[kind], spec).refuses(Facts(None, NAMED, **facts)))


ROUNDLESS = {"clients": 9, "cohort": 1, "at_work": 2, "asynchronous": True, "shape": (1, 4, 4)}


@pytest.mark.parametrize("kind, spec, facts, line", [
    ("timing", "fedbuff:buffer=1", {"timed": False}, "needs a model of time"),
    ("timing", "fedasync", {"at_work": 10}, "10 clients at work and 1 answers a merge need --clients 10 at least"),
    ("timing", "fedasync:concurrency=2", {"fixed_cohort": True}, "and so does --cohort X"),
    ("timing", "fedasync", {"candidates": True}, "--sampler X chooses from a cohort"),
    ("timing", "fedasync", {"pruner_reports": True}, "the clients of --pruner X report on rounds"),
    ("timing", "fedasync", {"common_model": False}, "the clients of --pruner X report on rounds"),
    ("timing", "fedasync", {"server_update": True}, "by --strategy X, belongs to a round"),
    ("timing", "fedasync", {"needs_previous": True}, "a stale free-rider"),
    ("timing", "fedasync", {"opening": True}, "--contribution X wants everybody in round 1"),
    ("timing", "sync:deadline=5", {"timed": False}, "leaves the slow out, which needs a model of time"),
    ("timing", "sync:over=1", {"candidates": True}, "the candidates of --sampler X are already more"),
    ("timing", "sync:over=1", {"cohort": 9}, "all 9 are asked already"),
    ("sampler", "power-of-choice:candidates=2", {"common_model": False}, "--pruner X gives everybody a model of"),
    ("pruner", "adaptive:groups=4", {"clients": 7}, "two groups of 4 need 8 clients, there are 7"),
    ("features", "rotation", {"ids": True}, "it changes the values of inputs"),
    ("features", "restyle", {"ids": True}, "it changes the values of inputs"),
    ("fault", "feature-noise", {"ids": True}, "it changes the values of inputs"),
    ("strategy", "scaffold", {"linear_steps": False}, "the steps of --optimiser X have no such length; take --opti"),
    ("strategy", "fednova", {"linear_steps": False}, "the steps of --optimiser X have no such length; take --opti"),
    ("strategy", "feddu", {"headline": "top5"}, "1 - accuracy says, and --task X measures top5"),
    ("augment", "flip", {"shape": (7,)}, "the samples are of shape (7,)"),
    ("augment", "crop", {"ids": True}, "these samples are whole numbers")])
def test_a_part_refuses_what_it_cannot_work_with(kind, spec, facts, line):
    assert refusals(kind, spec, **ROUNDLESS) == []
    found = refusals(kind, spec, **ROUNDLESS | facts)
    assert len(found) == 1 and line in found[0]


@pytest.mark.parametrize("spec, facts, line", [
    ("prunefl", {"pruner_reports": False}, "with --pruner X this is FedAvg"),
    ("feddst", {"pruned_apart": False}, "with --pruner X this is FedAvg"),
    ("feddst:mu=1", {"pruned_apart": False, "steps": 2}, "with --pruner X this is FedProx"),
    ("fedmp", {"pruned_apart": False}, "all clients train the same network: this is FedAvg"),
    ("fednova", {"same_steps": True}, "go equally far: this is FedAvg"),
    ("fednova", {"clipped": True}, "clients went less far"),
    ("fednova", {"cohort": 1}, "one answer makes a merge: this is FedAvg"),
    ("scaffold", {"steps": 1}, "their corrections cancel out: this is FedAvg"),
    ("scaffold", {"clipped": True}, "controls estimate the shortened ones"),
    ("feddyn", {"even": False}, "by --weighting X; the paper's is --weighting uniform"),
    ("feddyn", {"coded": True}, "as --codec X sends them"),
    ("feddyn", {"asynchronous": True}, "--timing X scales updates down"),
    ("median", {"cohort": 2}, "of 2 answers a merge none can be outvoted"),
    ("geometric-median", {"cohort": 1}, "of 1 answers a merge none can be outvoted"),
    ("thesis", {"cohort": 1}, "no effect of clip=3"),
    ("thesis-text", {"scored": False}, "nothing of it is left"),
    ("thesis-code", {"usual_loss": False}, "that of --task X counts in tests alone"),
    ("fedpcl", {"usual_loss": False, "own_tests": True}, "that of --task X counts in tests alone"),
    ("fedgkt", {"usual_loss": False, "own_tests": True}, "that of --task X counts in tests alone")])
def test_a_strategy_says_where_it_is_another_one(spec, facts, line):
    settled = {"pruned_apart": True, "pruner_reports": True, "even": True, "cohort": 9, "steps": 2}
    lines = list(make(KINDS["strategy"], spec).notes(Facts(None, NAMED, **settled | facts)))
    assert len(lines) == 1 and line in lines[0]


def test_a_change_of_inputs_that_touches_nobody_is_not_refused():
    assert refusals("features", "gaussian", ids=True, touched=0) == []


RULED = '''
from fedmpi.methods.pruning.static import static


def wary():
    """A pruner that does not like small runs."""

    def refuses(facts):
        if facts.clients < 9:
            yield f"it needs 9 clients, there are {facts.clients}"

    def notes(facts):
        yield "it is wary"

    return static()._replace(refuses=refuses, notes=notes)
'''


def test_rules_of_a_users_part_are_asked_as_all_others_are(fedmpi, tmp_path, monkeypatch):
    (tmp_path / "my_rules.py").write_text(RULED)
    monkeypatch.syspath_prepend(str(tmp_path))
    given = ("--dataset", "synthetic:samples=300,size=4", "--model", "logistic", "--pruner", "my_rules:wary",
             "--rounds", 1)
    refused = fedmpi(1, "train", *given, "--clients", 3, "--out", tmp_path / "a.h5", code=2)
    assert refused.strip().splitlines()[-1] == "error: --pruner my_rules:wary: it needs 9 clients, there are 3"
    played = fedmpi(1, "train", *given, "--clients", 9, "--out", tmp_path / "a.h5")
    assert "warning: --pruner my_rules:wary: it is wary" in played
