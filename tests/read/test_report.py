"""The report: known numbers, every column missing once, pictures that hold what they should."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedmpi.read import report
from fedmpi.core.errors import UserError
from fedmpi.store import Column, MemoryStore, read_run

N, T = 20, 40
OPTIONS = dict(dataset="fashion_mnist", partition="dirichlet:alpha=0.5", noise="uniform:rate=0.5", model="mlp")
OPTIONS |= dict(clients=N, cohort=5, rounds=50, strategy="fedavg", pruner="rigl:sparsity=0.9", codec="gaps", seed=1)


def example(rounds=T, without=(), noise=None):
    """A run with plausible numbers that are exact where a test reads them."""
    noise = np.r_[np.zeros(N // 2), np.linspace(0.1, 0.8, N // 2)] if noise is None else noise
    curve = 0.9 - 0.8 * np.exp(-np.arange(T) / 8)
    scalars = dict(
        round=np.arange(T) + 1, accuracy=curve, loss=2 - curve, val_accuracy=curve - 0.02, sparsity=np.full(T, 0.9),
        up_bytes=np.full(T, 5e6), down_bytes=np.full(T, 5e6), dense_bytes=np.full(T, 1e8),
        flops_prunefl=np.full(T, 2e9), flops_dense=np.full(T, 8e9),
        round_s=np.full(T, 2.5), train_s=np.full(T, 2.0), merge_s=np.full(T, 0.25),
    )  # fmt: skip
    names = [n for n in scalars if n not in without]
    dtypes = dict(round="int64", client="int64")
    columns = [Column(n, dtypes.get(n, "float64"), "1", n) for n in names]
    columns += [Column("kept", "int64", "1", "k", width=2)]
    clients = [n for n in ("client", "contribution", "weight") if n not in without]
    clients = [Column(n, dtypes.get(n, "float64"), "1", n) for n in clients]
    population = {"noise": (noise, "1", "wrong"), "samples": (np.arange(N) + 100, "1", "n")}
    attrs = dict(options=OPTIONS, status="running", command="fedmpi train", created="2025-01-01", prunable=1000)
    store = MemoryStore(attrs, columns, clients, {k: v for k, v in population.items() if k not in without}, ([0], []))
    for t in range(rounds):
        cohort = (np.arange(5) + 5 * t) % N
        rows = dict(client=cohort, contribution=1 - noise[cohort] + (0.1 if t < 20 else 0), weight=1 - noise[cohort])
        row = {n: scalars[n][t] for n in names} | dict(kept=[60, 40])
        store.append(row, {c.name: rows[c.name] for c in clients})
    return store.run()


def test_ranks_share_ties():
    assert report.ranks(np.array([10, 30, 20, 20])).tolist() == [1, 4, 2.5, 2.5]


@pytest.mark.parametrize(
    "x, y, expected",
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),  # 1 - 6 * 4 / (5 * 24)
        ([1, 2, 2, 3], [1, 2, 3, 4], 4.5 / np.sqrt(4.5 * 5)),
        ([1, 1, 1], [1, 2, 3], np.nan),
        ([1, 1, 2, 2], [1, 2, 1, 2], 0.0),
    ],
)
def test_spearman_known_values(x, y, expected):
    np.testing.assert_allclose(report.spearman(x, y), expected, atol=1e-15)


@pytest.mark.parametrize(
    "scores, positive, expected",
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([1, 2, 3, 4], [1, 1, 0, 0], 0.0),
        ([1, 3, 2, 4], [0, 0, 1, 1], 0.75),
        ([1, 2, 2, 3], [0, 0, 1, 1], 0.875),
        ([5, 5, 5], [0, 1, 1], 0.5),
        ([1, 2], [1, 1], np.nan),
    ],
)
def test_auc_known_values(scores, positive, expected):
    np.testing.assert_equal(report.auc(scores, positive), expected)


def test_auc_counts_pairs():
    gen = np.random.default_rng(0)
    scores, positive = gen.integers(0, 6, 40), gen.random(40) < 0.4
    pairs = [(p > n) + (p == n) / 2 for p in scores[positive] for n in scores[~positive]]
    assert report.auc(scores, positive) == pytest.approx(np.mean(pairs), abs=1e-15)


def test_weights_are_means_over_the_rounds_a_client_took_part_in():
    run = example()
    noise = run.population["noise"]
    np.testing.assert_allclose(report.by_client(run, "contribution"), 1 - noise + 0.05)
    np.testing.assert_allclose(report.by_client(run, "contribution", 0.25), 1 - noise)
    np.testing.assert_allclose(report.by_client(run, "contribution", 1 / T)[-5:], 1 - noise[-5:])
    assert np.isnan(report.by_client(run, "contribution", 1 / T)[:-5]).all()


# --- scores against the truth ---

SCORES = {"loo": [3, 4, 2, 1], "shapley": [4, 3, 2, 1], "size": [1, 1, 1, 1]}
QUALITY = [1.0, 1.0, 0.5, 0.0]                # the middle is 0.5, so that only the last client is bad


def judged_run(scores=SCORES, quality=QUALITY, options=(), cumulative=(), told=(), **population):
    """Two rounds of four clients, scored by estimators of which the first weighs; in the second round one less."""
    labels, N = list(scores), len(quality)
    columns = ["contribution", *(f"score_{label}" for label in labels[1:])]
    rounds = [Column("round", "int64", "1", "t"), Column("accuracy", "float64", "1", "a")]
    for label in labels:
        rounds += [Column(f"calls_{label}", "int64", "1", "c"), Column(f"score_{label}_s", "float64", "s", "s")]
    facts = dict(quality=quality, noise=np.zeros(N), samples=np.full(N, 7)) | population
    specs = dict(contribution=labels[0], observe=labels[1:], fault=[]) | dict(options)
    attrs = dict(options=specs, estimators={
        label: dict(spec=dict(told).get(label, label), sees="updates", cumulative=label in cumulative)
        for label in labels})
    clients = [Column("client", "int64", "1", "n")] + [Column(c, "float64", "1", c) for c in [*columns, "weight"]]
    store = MemoryStore(attrs, rounds, clients, {k: (v, "1", k) for k, v in facts.items()}, ([0], []))
    for t in range(2):
        who = np.arange(N - t)
        row = {f"calls_{label}": 5 + t for label in labels} | {f"score_{label}_s": 0.25 for label in labels}
        change = (1 - 2 * t) * np.where(who < N - 1, 0.5, 0)        # which the mean over the two rounds takes back
        found = {c: np.array(scores[label], float)[who] + change for c, label in zip(columns, labels)}
        store.append(row | dict(round=t + 1, accuracy=0.5), found | dict(client=who, weight=-who / 10))
    return store.run()


def test_estimators_are_judged_by_the_mean_score_of_each_client():
    found = report.judged(judged_run())
    assert list(found) == ["loo", "shapley", "size"]
    for numbers in found.values():
        assert numbers["calls"] == 11 and numbers["seconds"] == 0.5
    assert found["loo"]["spearman"] == pytest.approx(4.5 / np.sqrt(4.5 * 5)) and found["loo"]["auc"] == 1.0
    assert found["loo"]["weight_spearman"] == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert np.isnan(found["size"]["spearman"]) and found["size"]["auc"] == 0.5
    assert not any("weight_spearman" in found[label] for label in ("shapley", "size"))


def test_distances_to_the_exact_shapley_value():
    found = report.judged(judged_run())
    names = ("cosine_distance", "euclidean_distance", "max_distance", "shapley_spearman")
    np.testing.assert_allclose([found["loo"][n] for n in names], [1 / 30, np.sqrt(0.02), 0.1, 0.8], atol=1e-12)
    np.testing.assert_allclose([found["size"][n] for n in names], [1 - 5 / np.sqrt(30), np.sqrt(0.05), 0.15, np.nan])
    assert not set(names) & set(found["shapley"])


def test_estimators_are_compared_with_the_exact_shapley_value_of_their_own_kind_of_utility():
    scores = {"tmc": SCORES["loo"], "exact": SCORES["shapley"], "cosine": SCORES["loo"]}

    def distances(first, exact):
        found = report.judged(judged_run(scores, told={"tmc": first, "exact": exact}))
        return [found[label].get("max_distance") for label in ("tmc", "cosine")]

    near = pytest.approx(0.1)
    assert distances("tmc-shapley", "shapley") == distances("tmc-shapley:of=accuracy",
                                                            "shapley:of=accuracy") == [near] * 2
    assert distances("tmc-shapley", "shapley:of=accuracy") == distances("or-shapley", "shapley") == [None, near]
    assert distances("accuracy-gain", "shapley:of=accuracy") == distances("loss-gain", "shapley") == [near] * 2
    assert distances("tmc-shapley", "my.module:shapley") == [None, None]


def test_scores_that_accumulate_are_judged_by_the_last():
    found = report.judged(judged_run({"loo": [4., 3, 2, 1], "or-shapley": [0, 0, 0, 0.]},
                                     cumulative=("loo", "or-shapley")))
    assert found["loo"]["spearman"] == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    run = judged_run({"loo": [4., 3, 2, 1]}, cumulative=("loo",))
    run.clients["contribution"][:4] = 0                                  # nothing said in round 1, nobody judged by it
    assert np.isnan(report.scores(run)["loo"][3]) and report.scores(run)["loo"][:3].tolist() == [3.5, 2.5, 1.5]


def test_who_is_faulty_is_bad_and_the_others_are_judged_among_themselves():
    run = judged_run({"loo": [4., 3, 2, 1]}, quality=[1.0, 1.0, 0.6, 0.0], fault_0=[False, False, False, True])
    assert report.quality_found(run)["bad"] == 2 and report.judged(run)["loo"]["auc"] == 1.0


def test_copies_are_held_against_those_who_are_alone():
    run = judged_run({"loo": [4., 3, 2, 1]}, duplicate_of=[-1, 0, -1, -1])
    assert report.judged(run)["loo"]["copies"] == pytest.approx(3.5 / 1.5)


@pytest.mark.parametrize("name, x, y, expected", [
    ("cosine_distance", [1, 0], [0, 2], 1.0), ("cosine_distance", [1, 1], [-2, -2], 2.0),
    ("cosine_distance", [1, 2], [2, 4], 0.0), ("cosine_distance", [0, 0], [1, 2], np.nan),
    ("euclidean_distance", [1, 3], [30, 10], np.sqrt(0.5)), ("euclidean_distance", [-1, 1], [1, 2], np.nan),
    ("max_distance", [1, 3], [30, 10], 0.5), ("max_distance", [1, 2], [-1, -2], np.nan),
    ("max_distance", [], [], np.nan),
    ("total_variation", [0.5, 0.5, 0], [0, 0.5, 0.5], 0.5), ("entropy_bits", [2, 2, 0, 4], None, 1.5),
    ("entropy_bits", [0, 0], None, 0.0), ("entropy_bits", [9, 0], None, 0.0)])
def test_distances_known_values(name, x, y, expected):
    arguments = [np.array(v, float) for v in (x, y) if v is not None]
    np.testing.assert_allclose(getattr(report, name)(*arguments), expected, atol=1e-15)


def test_equal_scores_are_ties_however_often_a_client_was_scored():
    run = judged_run({"uniform": [0.1] * 4})
    client = np.repeat(np.arange(4), [1, 3, 6, 10])                      # 0.1 + 0.1 + 0.1 is not 3 * 0.1
    run = run._replace(clients=dict(client=client, contribution=np.full(20, 0.1)), ends=np.array([10, 20]))
    assert len(set(report.by_client(run, "contribution"))) > 1
    assert np.isnan(report.judged(run)["uniform"]["spearman"]) and report.judged(run)["uniform"]["auc"] == 0.5
    assert "uniform (weighs)  constant  0.500" in report.summary(run)


def test_clients_without_a_score_are_not_judged():
    run = judged_run({"loo": [1, 2, 3, np.nan]})
    found = report.judged(run)["loo"]
    assert found["spearman"] == pytest.approx(-np.sqrt(0.75)) and np.isnan(found["auc"])
    assert report.quality_found(run)["clients"] == 3 and report.quality_found(run)["bad"] == 0
    assert np.isnan(report.judged(judged_run({"loo": [np.nan] * 4}))["loo"]["spearman"])


def test_where_quality_does_not_vary_there_is_nothing_to_find():
    run = judged_run(quality=[0.5] * 4)
    found = report.judged(run)["loo"]
    assert np.isnan([found["spearman"], found["auc"], found["weight_spearman"]]).all() and found["calls"] == 11
    assert report.quality_found(run) is None and "quality_auc" not in report.final_metrics(run)
    assert "all 4 clients are equally good (no faults): nothing to find" in report.summary(run)


def test_old_run_files_are_judged_by_their_noise():
    found = report.quality_found(example())
    assert found["auc"] == 1.0 and found["bad"] == 6 and found["clients"] == N
    assert found["spearman"] == pytest.approx(1.0) and found["weight_spearman"] == pytest.approx(1.0)
    assert report.quality_found(example(noise=np.full(N, 0.3))) is None
    assert report.quality_found(example(noise=np.linspace(0.1, 0.5, N)))["bad"] == 10
    assert report.quality_found(example(rounds=0)) is None
    assert list(report.judged(example())) == ["contribution"] and report.quality(example(without=["noise"])) is None
    assert report.judged(example(without=["noise"])) == {"contribution": {}}


def test_the_summary_has_a_line_for_each_estimator():
    specs = dict(fault=["label-flip:share=0.5", "free-rider"])
    flips, rides = np.arange(4) < 2, np.arange(4) == 3
    run = judged_run(options=specs, noise=[0, 0, 0.5, 0], fault_0=flips, fault_1=rides)
    text = report.summary(run)
    lines = [line.split() for line in text.split("\n")]
    assert ["loo", "(weighs)", "+0.949", "1.000", "0.0333", "0.1414", "0.1000", "+0.800", "11", "0.5"] in lines
    assert ["shapley", "+0.949", "1.000", "-", "-", "-", "-", "11", "0.5"] in lines
    assert ["size", "constant", "0.500", "0.0871", "0.2236", "0.1500", "-", "11", "0.5"] in lines
    assert ["weight", "in", "the", "merge", "+0.949", *"-------"] in lines
    assert "quality   2 bad of 4 clients: 2 label-flip:share=0.5, 1 free-rider, 0 to 50 % of labels wrong" in text
    assert max(map(len, text.split("\n"))) < 120


def test_final_metrics():
    found = report.final_metrics(example())
    assert (found["rounds"], found["chosen_round"], found["sparsity"], found["round_s"]) == (40, 40, 0.9, 2.5)
    assert found["up_bytes"] == 2e8 and found["up_bytes_per_client"] == 1e6 and found["bytes_against_dense"] == 0.1
    assert found["flops_prunefl_against_dense"] == 0.25 and "flops_rigl" not in found


def test_rounds_without_an_evaluation_are_passed_over():
    run = example()
    run.rounds["accuracy"][1::2] = np.nan
    found = report.final_metrics(run)
    assert found["chosen_round"] == 39 and found["final_accuracy"] == run.rounds["accuracy"][38]
    assert [len(x) for _, x, _ in report.curves(run)] == [20, 40]
    run.rounds["accuracy"][:] = np.nan
    assert "accuracy" not in report.summary(run).replace("validation  accuracy", "")
    assert "test" not in report.picture(run)


def test_summary_says_what_was_run_and_what_came_out():
    text = report.summary(example())
    for part in (
        "dataset fashion_mnist, partition dirichlet:alpha=0.5",
        "pruner rigl:sparsity=0.9",
        "running, 40 of 50 rounds, created 2025-01-01",
        "final 0.8939; 0.8939 in round 40, the best by validation",
        "0.9000 of the prunable weights are zero (100 of 1,000 kept)",
        "200 MB in total, 1.00 MB a client and round",
        "0.1000 of what dense",
        "80.0 GFLOP as PruneFL counts, 0.250 of dense",
        "2.5 s a round: train 2, merge 0.25",
        "6 bad of 20 clients: 0 to 80 % of labels wrong",
        "contribution (weighs)    +1.000  1.000",
        "weight in the merge      +1.000      -",
    ):
        assert part in text
    assert "\033" not in text and max(map(len, text.split("\n"))) < 120


COLUMNS = ["round", "accuracy", "loss", "val_accuracy", "sparsity", "up_bytes", "dense_bytes", "flops_prunefl"]
COLUMNS += ["flops_dense", "round_s", "train_s", "client", "contribution", "weight", "noise", "samples"]


@pytest.mark.parametrize("without", [*([c] for c in COLUMNS), COLUMNS], ids=lambda w: w[0] if len(w) == 1 else "all")
def test_any_column_may_be_missing(without, tmp_path):
    run = example(without=without)
    assert "40 of 50 rounds" in report.summary(run)
    assert report.picture(run)
    json.dumps(report.to_json(run), allow_nan=False)
    if len(without) == 1:
        report.save_picture(run, tmp_path / "run.svg")
    else:
        with pytest.raises(UserError, match="nothing to draw"):
            report.save_picture(run, tmp_path / "run.svg")


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_young_run_can_be_looked_at(rounds, tmp_path):
    run = example(rounds=rounds)
    assert f"{rounds} of 50 rounds" in report.summary(run)
    assert ("no round" in report.picture(run)) == (rounds == 0)
    json.dumps(report.to_json(run), allow_nan=False)
    if rounds:
        report.save_picture(run, tmp_path / "run.png")


def test_a_bare_run_can_be_looked_at():
    run = MemoryStore({}, [], [], {}, ([0], [])).run()
    assert report.summary(run) == "status  0 rounds"
    assert report.to_json(run)["final"] == dict(rounds=0)


@pytest.mark.parametrize("width, height", [(120, 24), (80, 20), (60, 30), (40, 24)])
def test_pictures_fit_and_need_no_colour(width, height):
    text = report.picture(example(), width, height)
    lines = text.split("\n")
    assert len(lines) <= height and max(map(len, lines)) <= width and "\033" not in text
    assert "round" in text and "true rate of wrong labels" in text and "o" in text
    assert "\033[" in report.picture(example(), width, height, colour=True)


def test_a_picture_leaves_nothing_for_the_next_one():
    assert report.picture(example()) == report.picture(example())
    assert "wrong" not in report.picture(example(without=["contribution"]))


def test_contribution_is_drawn_against_quality_where_there_is_more_than_noise(tmp_path):
    run = judged_run(noise=[0, 0, 0.5, 0])
    assert report.shares(run)[1] == "quality (1 = good client)" and report.shares(run)[2].tolist() == QUALITY[:3]
    assert "quality (1 = good client)" in report.picture(run)
    report.save_picture(run, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size > 10000
    assert report.shares(judged_run(noise=1 - np.array(QUALITY)))[1] == "true rate of wrong labels"


def test_contribution_is_drawn_against_samples_where_noise_does_not_vary():
    assert report.shares(example())[1] == "true rate of wrong labels"
    assert report.shares(example(noise=np.zeros(N)))[1] == "samples"
    assert report.shares(example(without=["noise", "samples"]))[1] == "client"


@pytest.mark.parametrize("kind, first", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_saved_pictures_are_what_their_name_says_and_repeat(kind, first, tmp_path):
    paths = [tmp_path / f"{n}.{kind}" for n in "ab"]
    for path in paths:
        report.save_picture(example(), path)
    assert paths[0].read_bytes().startswith(first) and paths[0].read_bytes() == paths[1].read_bytes()


def test_pictures_that_cannot_be_saved_are_named(tmp_path):
    for path, reason in ((tmp_path / "a.gif", "must be .png"), (tmp_path / "no" / "a.png", "no folder")):
        with pytest.raises(UserError, match=reason):
            report.save_picture(example(), path)


def test_json_has_null_for_what_is_not_a_number():
    run = example()
    run.rounds["accuracy"][3], run.rounds["loss"][4] = np.nan, np.inf
    told = json.loads(json.dumps(report.to_json(run), allow_nan=False))
    assert told["rounds"]["accuracy"][3] is None and told["rounds"]["loss"][4] is None
    assert told["rounds"]["kept"][0] == [60, 40] and told["options"]["seed"] == 1
    assert told["final"]["quality_auc"] == told["judged"]["contribution"]["auc"] == 1.0
    assert told["attrs"]["status"] == "running"


def test_round_line():
    row = dict(round=12, accuracy=0.87121, loss=0.4123, sparsity=0.9, up_bytes=4.4e6, round_s=3.2)
    line = "round 12/50  accuracy 0.8712  loss 0.4123  sparsity 0.900  up 4.40 MB  3.20 s  2 min 05 s left"
    assert report.round_line(row, 50, 125.4) == line
    assert report.round_line(dict(round=1, accuracy=np.nan), 1000, None) == "round    1/1000"
    assert report.round_line(dict(round=1, up_bytes=2608), 2, None) == "round 1/2  up 2.61 kB"      # not 0.00 MB


@pytest.mark.parametrize(
    "seconds, text",
    [(0.034, "0.034 s"), (9.94, "9.9 s"), (59.7, "1 min 00 s"), (7500, "2 h 05 min"), (97200, "1 d 03 h")],
)
def test_human_seconds(seconds, text):
    assert report.human_seconds(seconds) == text


@pytest.mark.parametrize(
    "number, text", [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (12_345_678, "12.3 MB"), (4.4e9, "4.40 GB")]
)
def test_human_bytes(number, text):
    assert report.human_bytes(number) == text


@pytest.mark.parametrize(
    "low, high, most, whole, labels",
    [
        (1, 50, 5, True, ["0", "10", "20", "30", "40", "50"]),
        (0.1, 0.92, 5, False, ["0.0", "0.2", "0.4", "0.6", "0.8"]),
        (1, 1, 4, True, ["0", "1"]),
        (0.3, 0.3, 2, False, ["-0.5", "0.0", "0.5"]),
    ],
)
def test_nice_ticks(low, high, most, whole, labels):
    assert report.nice_ticks(low, high, most, whole)[1] == labels


def test_the_report_needs_neither_torch_nor_a_plotting_library_until_it_draws():
    code = "import sys, fedmpi.read.report; assert not {'torch', 'click', 'matplotlib', 'plotext'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(report.__file__).parents[3])


def test_what_became_of_clients_is_told_and_those_that_do_not_count_do_not_blur_scores(fedmpi, tmp_path):
    from fedmpi.read.report.truth import last_of_client
    out = tmp_path / "late.h5"
    fedmpi(1, "train", "--rounds", 3, "--clients", 12, "--cohort", 6, "--model", "small-cnn:width=4", "--local-epochs",
           1, "--devices", "drawn:dropout=0.4", "--timing", "sync:over=0.5", "--out", out)
    text = fedmpi(1, "show", out)
    run = read_run(out)
    asked, merged, dropped = (int(run.rounds[name].sum()) for name in ("asked", "merged", "dropped"))
    assert f"{merged} of {asked} were merged" in text and f"{dropped} never came" in text and "virtual time" in text
    scores = last_of_client(run, "contribution")
    assert set(np.flatnonzero(np.isfinite(scores))) == set(run.clients["client"][run.clients["outcome"] == 0])


# --- where the time went ---


def profiled(without=(), rounds=3, ranks=3, **attrs):
    """Three rounds with exact seconds: 10 in all, 6 of them training, 2 clients a round on two workers."""
    seconds = dict(encode_s=[0.5, 0.25, 0.25], train_s=[3, 2, 1], wait_s=[2, 1, 0.5], decode_s=[0.5] * 3,
                   evaluate_s=[0.5, np.nan, 0.25], store_s=[0, 0.25, 0.25], contribution_s=[0.25, 0.25, 0.5],
                   merge_s=[0.25, 0.25, 0.5], row_s=[0.5, 0.25, 0.25], round_s=[4.5, 3, 2.5])
    names = [name for name in seconds if name not in without]
    clients = [name for name in ("client", "train_s", "rank") if f"clients/{name}" not in without]
    rows = dict(client=[4, 7], rank=[1, 2])
    store = MemoryStore(dict(options={}, ranks=ranks) | attrs, [Column(n, "float64", "s", n) for n in names],
                        [Column(n, "float64" if n == "train_s" else "int64", "s", n) for n in clients], {}, ([0], []))
    for t in range(rounds):
        given = rows | dict(train_s=[2.5 - t / 2, 1.0])
        store.append({n: seconds[n][t] for n in names}, {n: np.array(given[n]) for n in clients})
    return store.run()


def test_a_profile_adds_up_and_counts_nothing_twice():
    found = report.profile(profiled())
    own = {name: each["seconds"] for name, each in found["phases"].items() if each["kind"] == "phase"}
    assert own == {"encode": 1, "train": 6, "value": 1, "merge": 1, "row": 1} and found["wall_s"] == 10
    assert found["phases"]["train"] == dict(
        kind="phase", seconds=6, share=0.6, median_s=2, largest_s=3, largest_round=1)
    evaluate = found["phases"]["evaluate"]
    assert evaluate == dict(
        kind="beside train", seconds=0.75, share=0.075, median_s=0.375, largest_s=0.5, largest_round=1)
    assert (found["workers"], found["client_s"], found["busy"]) == (2, 9, 0.75) and found["ranks"] == {1: 6, 2: 3}
    assert found["slowest"] == [dict(client=4, median_s=2, samples=None), dict(client=7, median_s=1, samples=None)]
    assert found["not_recorded"] == []


def test_a_profile_in_words():
    text = report.profile_text(profiled())
    assert "3 rounds, 10 s, 3.33 s a round" in text and "busy with them for 75 % of train" in text
    train, evaluate = (next(line for line in text.splitlines() if name in line) for name in ("train ", "evaluate *"))
    assert train.split() == ["train", "6.000", "60.0", "%", "2,000.0", "3,000.0", "1", 14 * "█"]
    assert evaluate.split()[2:5] == ["0.750", "7.5", "%"] and "▒▒" in evaluate
    assert report.profile_text(profiled(rounds=0)) == "no round has been played yet"
    assert "so far" in report.profile_text(profiled(status="running")) and "in one process" in report.profile_text(
        profiled(ranks=1))


def test_a_profile_of_an_old_run_says_what_it_lacks():
    run = profiled(without=("encode_s", "wait_s", "decode_s", "store_s", "row_s", "clients/rank"))
    found = report.profile(run)
    assert found["phases"]["evaluate"]["kind"] == "phase"           # then, nothing went on beside training
    assert found["phases"]["rest"]["seconds"] == pytest.approx(10 - 6 - 0.75 - 1 - 1)
    assert found["ranks"] == {}
    assert "encode_s, wait_s, decode_s, store_s, row_s, clients/rank" in report.profile_text(run)
    for column in ("round_s", "train_s", "evaluate_s", "clients/train_s", "clients/client"):
        report.profile_text(profiled(without=(column,)))
    assert "not recorded" in report.profile_text(example())


@pytest.mark.parametrize("ranks, options", [
    (1, ()), (3, ()), (1, ("--devices", "constant", "--timing", "fedbuff:buffer=2", "--cohort", 3))])
def test_the_profile_of_a_real_run_adds_up(fedmpi, tmp_path, ranks, options):
    fedmpi(ranks, "train", "--clients", 5, "--rounds", 3, "--local-epochs", 1, "--strategy", "fedavg", "--out",
           tmp_path / "run.h5", *options)
    found, run = report.profile(read_run(tmp_path / "run.h5")), read_run(tmp_path / "run.h5")
    phases = found["phases"]
    assert sum(each["seconds"] for each in phases.values() if each["kind"] == "phase") == pytest.approx(found["wall_s"])
    assert "rest" not in phases and found["not_recorded"] == [] and found["workers"] == max(ranks - 1, 1)
    inside = sum(phases[name]["seconds"] for name in ("wait", "decode", "evaluate", "store"))
    late = run.rounds["evaluate_s"][-1]                             # after the last round
    if not options:                                                 # where nobody trains, there is nothing to be beside
        assert inside - late == pytest.approx(phases["train"]["seconds"], rel=0.2)
    assert phases["wait"]["seconds"] + phases["decode"]["seconds"] <= phases["train"]["seconds"]
    assert 0 < found["busy"] <= 1.01 and sum(found["ranks"].values()) == pytest.approx(found["client_s"])
    assert "train" in fedmpi(1, "show", tmp_path / "run.h5", "--profile")
    told = json.loads(fedmpi(1, "show", tmp_path / "run.h5", "--json"))["profile"]
    assert told["phases"]["train"]["seconds"] == phases["train"]["seconds"]
    assert "no place" in fedmpi(1, "show", tmp_path / "run.h5", "--profile", "--picture", "a.png", code=2)
