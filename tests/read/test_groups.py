"""Groups of runs, and their names."""

import pytest
from example_runs import run_of, three_set_ups

from fedmpi.core.errors import UserError
from fedmpi.read import report
from fedmpi.read.report.groups import differing, unusual


def test_runs_that_differ_in_the_seed_only_are_one_group():
    runs = {f"{name}{seed}.h5": run_of([0.5], strategy=name, seed=seed, out=f"{name}{seed}", device="cpu")
            for name in ("fedavg", "krum") for seed in (0, 1)}
    groups = report.grouped(runs)
    assert [(group.tag, group.label, list(group.runs)) for group in groups] == [
        ("A", "fedavg", ["fedavg0.h5", "fedavg1.h5"]), ("B", "krum", ["krum0.h5", "krum1.h5"])]
    assert differing(groups) == {"strategy": ["fedavg", "krum"]}


def test_the_same_seed_twice_is_two_groups_named_by_their_files():
    groups = report.grouped({"x/one.h5": run_of([0.5], seed=3), "y/one.h5": run_of([0.6], seed=3)})
    assert [group.label for group in groups] == ["one (1)", "one (2)"] and differing(groups) == {}


@pytest.mark.parametrize("options, labels", [
    ([dict(lr=0.1), dict(lr=0.2)], ["lr 0.1", "lr 0.2"]),
    ([dict(pruner="static:sparsity=0.9"), dict(pruner="static:sparsity=0.8")], ["sparsity=0.9", "sparsity=0.8"]),
    ([dict(pruner="static"), dict(pruner="static:sparsity=0.8")], ["static as usual", "sparsity=0.8"]),
    ([dict(noise="none"), dict(noise="graded")], ["noise none", "graded"]),
    ([dict(pruner="dense"), dict(pruner="rigl:every=4,sparsity=0.8,fraction=0.2")], ["dense", "rigl"]),
    ([dict(pruner="dense"), dict(pruner="rigl:every=4"), dict(pruner="rigl:every=5")],
     ["dense", "rigl:every=4", "rigl:every=5"]),
    ([dict(strategy="krum", lr=0.1), dict(strategy="krum", lr=0.2), dict(strategy="median", lr=0.2)],
     ["krum, lr 0.1", "krum, lr 0.2", "median, lr 0.2"]),
    ([dict(fault=["scaled", "duplicate"]), dict(fault=[])], ["fault scaled + duplicate", "fault none"]),
])
def test_groups_are_named_by_the_fewest_options_that_tell_them_apart(options, labels):
    runs = {f"{number}.h5": run_of([0.5], **each) for number, each in enumerate(options)}
    found = [group.label for group in report.grouped(runs)]
    assert found == (labels if max(map(len, labels)) <= 32 else ["0", "1"])


def test_long_names_of_files_are_told_by_what_is_their_own():
    rest = "_dataset-fashion-mnist_net-lenet5_S-0.8_data-skew_weights-data_seed-"
    runs = {f"{arm}{rest}{seed}.h5": run_of([0.5], pruner=f"{arm}:sparsity=0.8,distribution=thesis,init=magnitude",
                                            seed=seed)
            for arm, seeds in (("static", (0, 1)), ("static-erk", (0,)), ("small-dense", (0, 1))) for seed in seeds}
    assert [group.label for group in report.grouped(runs)] == ["static", "static-erk", "small-dense"]
    same = {f"{n}/{'x' * 90}.h5": run_of([0.5]) for n in (1, 2)}
    assert all(30 <= len(group.label) <= 36 for group in report.grouped(same))
    both = {f"{arm}_net-lenet5_and-much-more-that-all-have_{data}.h5": run_of([0.5], model=f"{arm}{data}" * 9)
            for arm in ("a", "b") for data in ("skew", "noise")}
    assert [group.label for group in report.grouped(both)] == ["a_skew", "a_noise", "b_skew", "b_noise"]
    keyed = {f"static_dataset-fashion-mnist_net-lenet5_S-{S}_data-{data}.h5": run_of([0.5], model=f"{S}{data}" * 9)
             for S in (0.8, 0.95) for data in ("skew", "noise")}
    assert [group.label for group in report.grouped(keyed)] == ["0.8_skew", "0.8_noise", "0.95_skew", "0.95_noise"]
    ends = {f"{'x' * 90}{end}.h5": run_of([0.5], model=end * 40) for end in "ab"}
    assert [group.label for group in report.grouped(ends)] == [f"{'x' * 15}...{'x' * 13}{end}" for end in "ab"]


def test_runs_without_options_are_told_apart_by_their_files():
    bare = run_of([0.5])._replace(attrs={})
    assert [group.label for group in report.grouped({"a.h5": bare, "b.h5": bare})] == ["a", "b"]


def test_what_is_usual_with_the_strategy_is_not_unusual():
    run = run_of([0.5], strategy="thesis", pruner="rigl", contribution="cosine", weighting="relu", rounds=50)
    assert unusual(run) == {}
    run.attrs["options"].update(contribution="loo", lr=0.5)
    assert unusual(run) == {"contribution": ("loo", "cosine"), "lr": ("0.5", "0.1")}
    run.attrs["options"].update(strategy="nobodys.module:strategy")
    assert unusual(run)["pruner"] == ("rigl", "none")


@pytest.mark.parametrize("name", ["krum", "B", "krum-1.h5", "krum-0"])
def test_a_set_up_is_named_by_its_label_its_letter_or_a_run(name):
    assert report.find_group(report.grouped(three_set_ups()), name, "--baseline") == 1


def test_a_set_up_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(UserError, match="--baseline kram is none of .*: there are A fedavg; B krum; C median"):
        report.find_group(report.grouped(three_set_ups()), "kram", "--baseline")
    same = report.grouped({"x/a.h5": run_of([0.1], lr=0.5), "y/a.h5": run_of([0.1], lr=0.7)})
    with pytest.raises(UserError, match="--baseline a names several set-ups"):
        report.find_group(same, "a", "--baseline")


@pytest.mark.parametrize("pruners, labels", [
    (["rigl:every=4,sparsity=0.9", "rigl:every=5,sparsity=0.9", "static:sparsity=0.9,init=magnitude"],
     ["rigl:every=4", "rigl:every=5", "static"]),
    (["rigl:every=4,sparsity=0.9", "rigl:every=5,sparsity=0.9"], ["every=4", "every=5"])])
def test_a_label_leaves_out_options_that_are_the_same(pruners, labels):
    runs = {f"{number}.h5": run_of([0.5], pruner=each) for number, each in enumerate(pruners)}
    assert [group.label for group in report.grouped(runs)] == labels
