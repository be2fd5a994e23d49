"""Comparisons and plots of runs: groups and their names, what a budget buys, intervals, files for print."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from fedmpi.read import report
from fedmpi.core.errors import UserError
from fedmpi.build.options import DEFAULTS
from fedmpi.read.report import live
from fedmpi.read.report.chance import Stuck, left_chance
from fedmpi.read.report.comparison import spent_text
from fedmpi.read.report.groups import differing, unusual
from fedmpi.read.report.page import page
from fedmpi.read.report.series import mean_lines, prefix, spent, to_reach, within
from fedmpi.store import Column, MemoryStore, read_run

TINY = ("--clients", 4, "--rounds", 3, "--local-epochs", 1, "--train-samples", 300, "--model", "small-cnn:width=4")


def run_of(accuracy, sent=1000, flops=5e9, status="finished", **options):
    """A run with that accuracy a round (NaN: not evaluated), ``sent`` bytes each way and ``flops`` a round."""
    accuracy = np.asarray(accuracy, float)
    columns = dict(round="int64", accuracy="float64", loss="float64", up_bytes="int64", down_bytes="int64",
                   flops_prunefl="float64", sparsity="float64", round_s="float64")
    store = MemoryStore(dict(options=DEFAULTS | {"rounds": len(accuracy)} | options, status=status),
                        [Column(name, dtype, "1", name) for name, dtype in columns.items()],
                        [Column("client", "int64", "1", "n")], {}, ([0], []))
    for t, value in enumerate(accuracy):
        store.append(dict(round=t + 1, accuracy=value, loss=1 - value, up_bytes=sent, down_bytes=sent,
                          flops_prunefl=flops, sparsity=0.5, round_s=0.25), dict(client=np.array([0])))
    return store.run()


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


@pytest.mark.parametrize("width", [3.35, 1.5])
def test_pictures_grow_with_the_names_above_them(width):
    from fedmpi.read.report.figure import inches_high
    kind = report.KINDS["accuracy"]
    few, many = (kind.find(report.grouped({f"{n}.h5": run_of([0.1, 0.5], lr=n + 1.0) for n in range(num)}))
                 for num in (3, 30))
    assert inches_high(kind, few, width, 8) == 0.72 * width
    assert inches_high(kind, many, width, 8) == pytest.approx(0.72 * width + 30 * 1.2 * 8 / 72)


@pytest.mark.parametrize("num", [2, 9, 40])
def test_bars_of_several_runs_stay_with_their_round(num):
    from matplotlib.figure import Figure

    from fedmpi.read.report import draw
    from fedmpi.read.report.series import Line
    ax = Figure().subplots()
    still = Line("still", np.array([1.0, 2, 3]), np.zeros(3))
    draw.stems(ax, [still, *(Line(str(n), np.array([1.0, 2, 3]), np.ones(3)) for n in range(num))], "round", "y")
    assert len(ax.lines[0].get_xdata()) == 0
    assert np.mean([line.get_xdata()[0] for line in ax.lines[1:]]) == pytest.approx(1)
    for line in ax.lines[1:]:
        assert (np.abs(line.get_xdata() - [1, 2, 3]) < 0.5).all()


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


def test_what_a_budget_buys_is_the_last_value_known_then():
    run = run_of([0.1, 0.4, np.nan, 0.3, 0.6])
    assert spent(run, "bytes").tolist() == [2000, 4000, 6000, 8000, 10000] and spent(run, "virtual") is None
    assert [within(run, "bytes", budget) for budget in (2000, 3999, 4000, 7999, 8000)] == [0.1, 0.1, 0.4, 0.4, 0.3]
    assert np.isnan(within(run, "bytes", 1999))
    assert [to_reach(run, axis, 0.4) for axis in ("rounds", "bytes", "flops")] == [2, 4000, 1e10]
    assert to_reach(run, "rounds", 0.5) == 5 and np.isnan(to_reach(run, "rounds", 0.61))


def test_a_line_of_several_seeds_is_their_mean_where_all_were_evaluated():
    runs = {"a": run_of([0.1, np.nan, 0.5, 0.9], seed=0), "b": run_of([0.3, 0.4, 0.7], sent=2000, seed=1, rounds=4)}
    line, = mean_lines(report.grouped(runs), "accuracy", "bytes")
    assert line.x.tolist() == [3000, 9000]
    np.testing.assert_allclose([line.y, line.low, line.high], [[0.2, 0.6], [0.1, 0.5], [0.3, 0.7]])


def test_intervals_are_students():
    gen = np.random.default_rng(0)
    x, y = gen.normal(1, 2, 7), gen.normal(0, 1, 7)
    found = report.paired_difference(x, y)
    low, high = stats.ttest_rel(x, y).confidence_interval(0.95)
    np.testing.assert_allclose([found.low, found.high, found.mean, found.std],
                               [low, high, np.mean(x - y), np.std(x - y, ddof=1)])
    assert found.n == 7 and report.interval([1, 2, 3]).mean == 2
    one, none = report.interval([4]), report.interval([])
    assert one.mean == 4 and np.isnan([one.std, one.low, none.mean]).all() and none.n == 0
    assert np.isnan(report.interval([1, np.nan]).mean)


def two_set_ups():
    """Set-ups of two seeds: the second sends half as much a round, and is better by 0.1 and 0.2 after 4 rounds."""
    curves = {("fedavg", 0): [0.1, 0.3, 0.5, 0.6], ("fedavg", 1): [0.2, 0.3, 0.4, 0.5],
              ("krum", 0): [0.1, 0.2, 0.65, 0.7], ("krum", 1): [0.2, 0.4, 0.6, 0.7]}
    return {f"{name}-{seed}.h5": run_of(curve, sent=1000 if name == "fedavg" else 500, strategy=name, seed=seed)
            for (name, seed), curve in curves.items()}


def test_a_comparison_of_known_numbers():
    found = report.comparison(report.grouped(two_set_ups()))
    assert found["equal"]["rounds"] == {"budgets": [1, 2, 4], "accuracy": [
        [[0.1, 0.2], [0.1, 0.2]], [[0.3, 0.3], [0.2, 0.4]], [[0.6, 0.5], [0.7, 0.7]]]}
    assert found["equal"]["bytes"]["budgets"] == [1000, 2000, 4000]
    assert found["equal"]["bytes"]["accuracy"][2] == [[0.3, 0.3], [0.7, 0.7]]
    assert np.isnan(found["equal"]["bytes"]["accuracy"][0][0]).all()
    assert found["reach"]["accuracy"] == 0.5 and found["reach"]["rounds"] == [[3, 4], [3, 3]]
    assert found["reach"]["bytes"] == [[6000, 8000], [3000, 3000]]
    paired = {each["axis"]: each for each in found["paired"]}
    assert paired["rounds"]["group"] == "B" and paired["rounds"]["seeds"] == [0, 1]
    assert paired["rounds"]["interval"] == pytest.approx(report.paired_difference([0.7, 0.7], [0.6, 0.5]))
    assert "virtual" not in found["equal"] and found["outcomes"]["bytes"][1].mean == 4000


def test_a_comparison_in_words_says_first_what_differs():
    text = report.comparison_text(report.comparison(report.grouped(two_set_ups()), 0.65))
    order = [text.index(part) for part in ("A  fedavg", "what differs", "strategy", "what came of it", "at equal cost",
                                           "to reach a test accuracy of 0.65", "differences of test accuracy")]
    assert order == sorted(order) and "never" in text and "0.550 ± 0.071" in text
    assert re.search(r"B - A +4 rounds +2 +\+0.1500 \[-0.4853, \+0.7853\]", text)
    assert re.search(r"rounds +never +3.5 ± 0.7", text) and max(map(len, text.split("\n"))) < 100


def test_where_some_seeds_never_get_there_it_says_so():
    text = report.comparison_text(report.comparison(report.grouped(two_set_ups()), 0.6))
    assert "4 (1 of 2 seeds)" in text


def test_runs_that_say_nothing_beside_one_another_are_refused():
    runs = {"a.h5": run_of([0.5]), "b.h5": run_of([0.6], dataset="synthetic")}
    with pytest.raises(UserError, match="a.h5 has digits, b.h5 has synthetic; --other-data"):
        report.refuse_other_data(runs)
    report.refuse_other_data({"a.h5": run_of([0.5]), "b.h5": run_of([0.6], partition="iid", noise="none")})


@pytest.mark.parametrize("curves", [([], [0.1]), ([np.nan], [0.1]), ([0.004], [0.1])])
def test_young_runs_are_compared_as_far_as_they_are(curves):
    runs = {f"{number}.h5": run_of(curve, lr=number + 0.5, status="running") for number, curve in enumerate(curves)}
    groups = report.grouped(runs)
    found = report.comparison(groups)
    assert "not the end: still running, or killed, after" in report.comparison_text(found) and found["paired"] == []
    json.dumps(report.plain(report.without_tuples(found)), allow_nan=False)
    assert report.curves_picture(groups)


def with_failures():
    """Two set-ups of three seeds, of which one each failed: in the first round, and before a round was evaluated; then
    one that failed at once."""
    runs = {f"a{seed}.h5": run_of(curve, seed=seed) for seed, curve in enumerate(([0.1, 0.5], [0.2, 0.6], [0.3, 0.4]))}
    runs |= {"zero.h5": run_of([], lr=0.9, status="failed")}
    runs |= {f"b{seed}.h5": run_of(curve, lr=0.5, seed=seed) for seed, curve in enumerate(([0.1, 0.7], [0.2, 0.9]))}
    return runs | {"b2.h5": run_of([np.nan], lr=0.5, seed=2, status="failed", rounds=2)}


def test_runs_that_failed_take_nothing_from_the_others():
    groups = report.grouped(with_failures())
    assert [group.label for group in groups] == ["lr 0.1", "lr 0.5", "lr 0.9"]       # what cannot be drawn is last
    found = report.comparison(groups)
    text = report.comparison_text(found)
    assert "not the end: failed, b2.h5 after 1 rounds" in text and "not the end: failed, after 0 rounds" in text
    assert re.search(r"final accuracy +0.500 ± 0.100 +0.800 ± 0.141 \(2 of 3 seeds\) +-\n", text)
    assert re.search(r"2 rounds +0.500 ± 0.100 +0.800 ± 0.141 \(2 of 3 seeds\) +-\n", text)
    paired = {(each["group"], each["axis"]): each for each in found["paired"]}
    assert paired["B", "rounds"]["seeds"] == [0, 1] and not any(group == "C" for group, _ in paired)
    assert paired["B", "rounds"]["interval"].mean == pytest.approx(0.25)
    drawn = report.KINDS["accuracy"].find(groups)
    assert [line.label for line in drawn.lines] == ["lr 0.1", "lr 0.5"]
    np.testing.assert_allclose([line.y for line in drawn.lines], [[0.2, 0.5], [0.15, 0.8]])
    assert report.curves_picture(groups).count("B") > 1 and "nan" not in text


def test_the_best_round_is_selected_by_validation_and_not_by_the_test_set():
    run = run_of([0.3, 0.9, 0.5, 0.4])
    assert "chosen_accuracy" not in report.final_metrics(run)
    run.rounds["val_accuracy"] = np.array([0.2, 0.3, 0.6, np.nan])
    assert report.final_metrics(run)["chosen_accuracy"] == 0.5
    other = run_of([0.1], lr=0.5)
    found = report.comparison(report.grouped({"a.h5": run, "b.h5": other}))["outcomes"]
    assert found["chosen_accuracy"][0].mean == 0.5 and found["chosen_accuracy"][1] is None
    assert "best_accuracy" not in found


def test_every_reader_calls_the_same_round_the_best_whatever_the_test_set_says():
    run = run_of([0.3, 0.9, 0.5, 0.4])                    # the test set's own maximum is of round 2
    run.rounds["val_accuracy"] = np.array([0.2, 0.3, 0.6, 0.1])
    groups = report.grouped({"a.h5": run})
    accuracy = report.KINDS["accuracy"]
    told = {"summary": report.summary(run), "json": str(report.to_json(run)["final"]),
            "watch": live.board({"a.h5": run}, (), 200, 5), "page": page({"a.h5": run}),
            "plot": accuracy.say(accuracy.find(groups))}
    assert "final 0.4000; 0.5000 in round 3, the best by validation" in told["summary"]
    assert "'chosen_accuracy': 0.5, 'chosen_round': 3" in told["json"]
    assert live.table({"a.h5": run})[1].split()[3:6] == ["-", "0.4000", "0.5000"]
    assert "0.500 in round 3, the best by validation" in told["page"]
    assert "test: best by validation 0.5 at round 3, then 0.4 at round 4; validation: best by validation 0.6 at" in (
        told["plot"])
    for reader in ("summary", "json", "watch"):
        assert "0.9" not in told[reader], reader


def test_without_validation_samples_no_round_is_called_the_best():
    run = run_of([0.3, 0.9, 0.5, 0.4])
    assert "final 0.4000 (without validation samples no round can be called the best)" in report.summary(run)
    assert live.table({"a.h5": run})[1].split()[4:6] == ["0.4000", "-"]
    assert "after the last round" in page({"a.h5": run})
    accuracy = report.KINDS["accuracy"]
    said = accuracy.say(accuracy.find(report.grouped({"a.h5": run})))
    assert said == "Test accuracy by round. The test set's own maximum 0.9 at round 2, then 0.4 at round 4."
    assert not any("best" in key for key in report.final_metrics(run))


@pytest.mark.parametrize("number, unit", [(0, ""), (999, ""), (1000, "k"), (2.5e7, "M"), (1e30, "E")])
def test_prefixes(number, unit):
    assert prefix(number)[1] == unit


# --- the commands ---


@pytest.fixture(scope="module")
def runs(fedmpi, tmp_path_factory):
    """Two set-ups with two seeds each, and one on other data, as run files."""
    folder = tmp_path_factory.mktemp("runs")
    for strategy in ("fedavg", "thesis"):
        for seed in (0, 1):
            fedmpi(1, "train", *TINY, "--strategy", strategy, "--pruner", "rigl:every=1", "--seed", seed, "--out",
                   folder / f"{strategy}{seed}.h5")
    fedmpi(1, "train", *TINY, "--dataset", "synthetic:samples=400", "--model", "logistic", "--pruner", "dense", "--out",
           folder / "other.h5")
    return folder


def paths(folder):
    return [folder / f"{strategy}{seed}.h5" for strategy in ("fedavg", "thesis") for seed in (0, 1)]


def test_compare_on_the_command_line(fedmpi, runs):
    picture = runs / "compared.svg"
    text = fedmpi(1, "compare", *paths(runs), "--picture", picture)
    assert "what differs" in text and "B - A" in text and re.search("[⠁-⣿]", text) and picture.stat().st_size > 10000
    told = json.loads(fedmpi(1, "compare", *paths(runs), "--json", "--accuracy", 0.01))
    assert [group["label"] for group in told["groups"]] == ["fedavg", "thesis"] and told["reach"]["accuracy"] == 0.01
    assert told["paired"][0]["interval"]["n"] == 2 and told["differ"]["strategy"] == ["fedavg", "thesis"]


def test_what_cannot_be_compared_is_one_line(fedmpi, runs):
    first, other = paths(runs)[0], runs / "other.h5"
    assert "there is one run" in fedmpi(1, "compare", first, first, code=2)
    refused = fedmpi(1, "compare", first, other, code=2)
    assert "other data" in refused and refused.count("\n") == 1
    assert "what came of it" in fedmpi(1, "compare", first, other, "--other-data")
    assert "no such file" in fedmpi(1, "compare", first, runs / "no.h5", code=2)


def test_every_kind_is_listed_and_drawn(fedmpi, runs):
    listed = " ".join(fedmpi(1, "plot", "--help").split())
    assert all(f"{name} {kind.line}"[:60] in listed for name, kind in report.KINDS.items())
    absent = ("accuracy-virtual", "answers", "own", "own-clients")
    recorded = [name for name in report.KINDS if name not in absent]
    kinds = [argument for name in recorded for argument in ("--kind", name)]
    fedmpi(1, "plot", paths(runs)[2], *kinds, "-o", runs / "all.pdf", "--width", "text")
    assert (runs / "all.pdf").read_bytes().startswith(b"%PDF")
    for name in absent:
        refused = fedmpi(1, "plot", paths(runs)[2], "--kind", name, "-o", runs / "a.svg", code=2)
        assert f"--kind {name}: not recorded" in refused


def test_plots_hold_their_fonts_and_repeat(fedmpi, runs):
    for kind in ("pdf", "svg", "png"):
        names = [runs / f"{number}.{kind}" for number in (1, 2)]
        for name in names:
            fedmpi(1, "plot", *paths(runs), "--kind", "accuracy", "-o", name, "--font", "serif", "--width", "10")
        assert names[0].read_bytes() == names[1].read_bytes()
    pdf = (runs / "1.pdf").read_bytes()
    assert b"STIXGeneral" in pdf and b"/FontFile2" in pdf and b"/Type3" not in pdf
    svg = (runs / "1.svg").read_text()
    assert "<text" not in svg and f'width="{10 / 2.54 * 72:.6f}'.rstrip("0") in svg
    width, = np.frombuffer((runs / "1.png").read_bytes()[16:20], ">u4")
    assert width == int(10 / 2.54 * 300)


@pytest.mark.parametrize("arguments, reason", [
    (("--kind", "curve", "-o", "a.svg"), "there are accuracy, accuracy-bytes"), (("-o", "a.gif"), "must be .png"),
    (("-o", "a.svg", "--width", "wide"), "--width must be column, text or centimetres"),
    (("-o", "a.svg", "--width", "1"), "from 3 to 100, got 1")])
def test_what_cannot_be_plotted_is_one_line(fedmpi, runs, monkeypatch, tmp_path, arguments, reason):
    monkeypatch.chdir(tmp_path)
    text = fedmpi(1, "plot", paths(runs)[0], *arguments, code=2)
    assert reason in text and text.count("\n") == 1 and not list(tmp_path.iterdir())


def drawn(names, groups, **more):
    """The figure that ``plotted`` draws, its axes, and the names in its legends."""
    from matplotlib.figure import Figure

    from fedmpi.read.report.plot import plotted
    size, show = plotted(groups, names, **more)
    figure = Figure(figsize=size, layout="constrained")
    show(figure)
    legends = [legend for part in [figure, *figure.subfigs] for legend in part.legends]
    return figure, figure.axes, [[text.get_text() for text in legend.get_texts()] for legend in legends]


def levels(ax):
    """Where lines lie across the whole picture."""
    return [line.get_ydata()[0] for line in ax.lines if len(line.get_ydata()) == 2]


def test_several_panels_of_the_same_lines_have_one_legend():
    groups = report.grouped(two_set_ups())
    _, axes, legends = drawn(["accuracy", "accuracy-bytes"], groups)
    assert legends == [["fedavg", "krum"]] and [len(ax.texts) for ax in axes] == [0, 0]
    _, axes, legends = drawn(["accuracy"], groups)
    assert legends == [] and [text.get_text() for text in axes[0].texts] == ["fedavg", "krum"]


def test_limits_levels_and_a_title_are_drawn():
    groups = report.grouped(two_set_ups())
    reference = run_of([0.2, 0.9, 0.85])
    figure, axes, _ = drawn(["accuracy"], groups, xlim=(0, 2.5), ylim=(0, 1), title="All of it",
                            baselines=[("goal", 0.75), ("central", reference)])
    assert axes[0].get_xlim() == (0, 2.5) and axes[0].get_ylim() == (0, 1)
    assert figure.get_suptitle() == "All of it"
    assert levels(axes[0]) == [0.75, 0.85]
    names = {text.get_text(): text.xy[1] for text in axes[0].texts}
    assert names["goal"] == 0.75 and names["central"] == 0.85
    # a name stands where its line leaves the picture, after round 2
    assert names["fedavg"] == pytest.approx(0.3, abs=0.1) and names["krum"] == pytest.approx(0.3, abs=0.1)


def test_a_baseline_is_read_off_in_each_panels_own_column():
    _, axes, _ = drawn(["accuracy", "loss"], report.grouped(two_set_ups()), baselines=[("x", run_of([0.75]))])
    assert [levels(ax) for ax in axes] == [[0.75], [0.25]]


@pytest.mark.parametrize("names, more, reason", [
    (["accuracy", "accuracy-bytes"], dict(xlim=(0, 1)), "these kinds have several axes, round, sent, up and down"),
    (["accuracy", "loss"], dict(ylim=(0, 1)), "accuracy, loss or sparsity side by side"),
    (["accuracy", "loss"], dict(baselines=[("x", 0.5)]), "accuracy, loss or sparsity side by side"),
    (["accuracy"], dict(baselines=[("x", run_of([]))]), "--baseline x: that run has no accuracy yet")])
def test_what_a_panel_cannot_take_is_refused(names, more, reason):
    with pytest.raises(UserError, match=reason):
        drawn(names, report.grouped(two_set_ups()), **more)


def test_plots_take_names_titles_limits_and_baselines(fedmpi, runs):
    asked = ("--label", "FedAvg", "--label", "ours", "--title", "Both", "--xlim", 1, 3, "--ylim", 0, 1)
    plain, full = runs / "plain.svg", runs / "full.svg"
    fedmpi(1, "plot", *paths(runs), "-o", plain)
    fedmpi(1, "plot", *paths(runs), *asked, "--baseline", "0.5", "--baseline", f"other={runs / 'other.h5'}", "-o", full)
    assert full.stat().st_size > plain.stat().st_size > 10000


@pytest.mark.parametrize("arguments, reason", [
    (("--label", "one"), "2 set-ups need 2 names, got 1; in their order they are fedavg; thesis"),
    (("--label", "a", "--label", "a"), "two set-ups would have the same name"),
    (("--xlim", 3, 1), "--xlim must be two numbers, the lower one first, got 3 1"),
    (("--ylim", 0, "nan"), "--ylim must be two numbers"),
    (("--baseline", "nowhere.h5"), "nowhere.h5 is neither a number nor a run file"),
    (("--baseline", "x=inf"), "must be a finite number"),
    (("--kind", "churn", "--baseline", "0.5"), "are of curves: a panel of another --kind takes none")])
def test_what_plots_cannot_take_is_one_line(fedmpi, runs, tmp_path, arguments, reason):
    text = fedmpi(1, "plot", *paths(runs), *arguments, "-o", tmp_path / "a.svg", code=2)
    assert reason in text and text.count("\n") == 1 and not list(tmp_path.iterdir())


def test_names_beside_lines_keep_apart_and_in_order():
    from fedmpi.read.report.draw import _apart
    for wanted in ([0.5, 0.5, 0.5], [0.98, 0.99, 0.1], [0.0, 0.01, 0.9], [0.3, 0.1, 0.2]):
        found = _apart(wanted, 0.08)
        assert np.diff(np.sort(found)).min() >= 0.08 - 1e-12 and found.min() >= 0 and found.max() <= 1 + 1e-12
        assert np.argsort(found, kind="stable").tolist() == np.argsort(wanted, kind="stable").tolist()
    np.testing.assert_allclose(_apart([0.2, 0.8], 0.1), [0.2, 0.8])


def test_any_two_of_seven_lines_differ_in_colour_and_in_dashes_and_in_marks():
    from fedmpi.read.report.figure import style
    looks = [tuple(map(str, style(number).values())) for number in range(49)]
    assert len(set(looks)) == 49
    for number in range(7):
        others = [style(other) for other in range(7) if other != number]
        for part in ("color", "linestyle", "marker"):
            assert style(number)[part] not in [other[part] for other in others]


@pytest.mark.parametrize("layers, drawn", [(1, False), (2, True), (30, True)])
def test_layers_are_lines_or_where_they_are_many_rows(layers, drawn, tmp_path):
    kept = np.tile(np.arange(1, layers + 1), (5, 1))
    run = run_of([0.1, 0.2, 0.3, 0.4, 0.5])
    run.rounds["kept_layers"] = kept
    run.attrs["layers"] = [[f"{n}.weight", [10, 10], 1.0] for n in range(layers)]
    kind = report.KINDS["layers"]
    found = kind.find(run)
    assert (found is not None) == drawn
    if drawn:
        assert f"{layers - 1}.weight is the densest ({1 - layers / 100:.3f})" in kind.say(found)
        report.save_plot(report.grouped({"a.h5": run}), ["layers"], str(tmp_path / "a.png"))


def test_pictures_say_what_they_show():
    groups = report.grouped(two_set_ups())
    said = report.KINDS["accuracy-bytes"].say(report.KINDS["accuracy-bytes"].find(groups))
    assert said.startswith(
        "Test accuracy by bytes sent, up and down. fedavg: the test set's own maximum 0.55 at 8.00 kB, "
        "the last; krum: the test set's own maximum")
    one = report.grouped({"a.h5": run_of([0.1, 0.6, 0.4])})
    assert report.KINDS["loss"].say(report.KINDS["loss"].find(one)) == (
        "Test loss by round. Lowest 0.4 at round 2, then 0.6 at round 3.")
    assert report.KINDS["sparsity"].say(report.KINDS["sparsity"].find(one)).endswith("by round. 0.500 throughout.")


# --- baselines, pairs, and set-ups that have learned nothing ---


def three_set_ups():
    return two_set_ups() | {f"median-{seed}.h5": run_of([0.1, 0.2, 0.3, 0.3 + seed / 10], strategy="median", seed=seed)
                            for seed in (0, 1)}


def pairs_of(found):
    return [(each["group"], each["against"]) for each in found["paired"] if each["axis"] == "rounds"]


def test_all_are_held_against_the_baseline_or_every_two_against_one_another():
    groups = report.grouped(three_set_ups())
    assert pairs_of(report.comparison(groups)) == [("B", "A"), ("C", "A")]
    assert pairs_of(report.comparison(groups, against=1)) == [("A", "B"), ("C", "B")]
    assert pairs_of(report.comparison(groups, every_pair=True)) == [("B", "A"), ("C", "A"), ("C", "B")]
    turned, = (each["interval"] for each in report.comparison(groups, against=1)["paired"]
               if each["group"] == "C" and each["axis"] == "rounds")
    assert turned == pytest.approx(report.paired_difference([0.3, 0.4], [0.7, 0.7]))


@pytest.mark.parametrize("name", ["krum", "B", "krum-1.h5", "krum-0"])
def test_a_set_up_is_named_by_its_label_its_letter_or_a_run(name):
    assert report.find_group(report.grouped(three_set_ups()), name, "--baseline") == 1


def test_a_set_up_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(UserError, match="--baseline kram is none of .*: there are A fedavg; B krum; C median"):
        report.find_group(report.grouped(three_set_ups()), "kram", "--baseline")
    same = report.grouped({"x/a.h5": run_of([0.1], lr=0.5), "y/a.h5": run_of([0.1], lr=0.7)})
    with pytest.raises(UserError, match="--baseline a names several set-ups"):
        report.find_group(same, "a", "--baseline")


def of_classes(counts, accuracy, recorded=True, **options):
    """A run whose test set has that many samples of each class."""
    run = run_of(accuracy, **options)
    run.population["true_labels"] = np.array([counts])
    return run._replace(attrs=run.attrs | ({"inputs": {"test_labels": counts}} if recorded else {}))


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("counts, accuracy, left", [
    ([10] * 10, [0.1, np.nan, 0.12], False), ([10] * 10, [0.1, 0.121], True),
    ([90, 10], [0.9, 0.9], False), ([90, 10], [0.9, 0.92], False), ([90, 10], [0.925], True),
    ([10] * 10, [np.nan], None), ([10] * 10, [], None)])
def test_a_run_has_left_chance_where_it_beats_naming_the_most_frequent_class(counts, accuracy, left, recorded):
    assert left_chance(of_classes(counts, accuracy, recorded)) is left


def test_a_run_that_does_not_tell_its_classes_is_not_judged():
    assert left_chance(run_of([0.1])) is None and report.comparison(report.grouped({"a": run_of([0.1])}))["chance"] == [
        None]


def test_set_ups_that_never_left_chance_are_named():
    runs = {f"{name}{seed}.h5": of_classes([10] * 10, curve, strategy=name, seed=seed)
            for name, curves in {"fedavg": ([0.1, 0.104], [0.1, 0.3]), "krum": ([0.1, 0.4], [0.1, 0.5])}.items()
            for seed, curve in enumerate(curves)}
    found = report.comparison(report.grouped(runs))
    assert found["chance"] == [Stuck(1, 2, 0.104, 0.1), None]
    text = report.comparison_text(found)
    assert "never left chance: fedavg (1 of 2 runs), at best 0.104 where guessing has 0.100" in text
    assert "a difference from a set-up that did not learn says only that it did not learn" in " ".join(text.split())
    assert json.loads(json.dumps(report.plain(report.without_tuples(found))))["chance"][0]["stuck"] == 1
    del runs["fedavg0.h5"]
    assert "never left" not in report.comparison_text(report.comparison(report.grouped(runs)))


def test_a_run_records_how_many_test_samples_each_class_has(fedmpi, runs):
    counts = read_run(runs / "fedavg0.h5").attrs["inputs"]["test_labels"]
    assert len(counts) == 10 and sum(counts) == 359 and min(counts) > 20


def test_compare_against_a_baseline_on_the_command_line(fedmpi, runs):
    assert "A - B" in fedmpi(1, "compare", *paths(runs), "--baseline", runs / "thesis1.h5")
    assert "A - B" in fedmpi(1, "compare", *paths(runs), "--baseline", "thesis")
    assert "B - A" in fedmpi(1, "compare", *paths(runs), "--pairs")
    assert "of --baseline and --pairs one" in fedmpi(1, "compare", *paths(runs), "--pairs", "--baseline", "A", code=2)
    refused = fedmpi(1, "compare", *paths(runs), "--baseline", "prox", code=2)
    assert "there are A fedavg; B thesis" in refused and refused.count("\n") == 1
    assert "no two set-ups share two seeds" in fedmpi(1, "compare", *paths(runs)[1:3], "--baseline", "A")


@pytest.mark.parametrize("pruners, labels", [
    (["rigl:every=4,sparsity=0.9", "rigl:every=5,sparsity=0.9", "static:sparsity=0.9,init=magnitude"],
     ["rigl:every=4", "rigl:every=5", "static"]),
    (["rigl:every=4,sparsity=0.9", "rigl:every=5,sparsity=0.9"], ["every=4", "every=5"])])
def test_a_label_leaves_out_options_that_are_the_same(pruners, labels):
    runs = {f"{number}.h5": run_of([0.5], pruner=each) for number, each in enumerate(pruners)}
    assert [group.label for group in report.grouped(runs)] == labels


def test_one_round_is_no_rounds():
    assert spent_text("rounds", 1.0) == "1 round" and spent_text("rounds", 2.0) == "2 rounds"
