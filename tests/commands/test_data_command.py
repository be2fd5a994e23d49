"""fedmpi data: the numbers of a partition, its table and pictures, and what a user's mistake leads to."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from fedmpi.read import report
from fedmpi.build import federation as dealing
from fedmpi.build.parts import of_data
from fedmpi.build.population import population
from fedmpi.build.options import DEFAULTS
from fedmpi.core.words import plural

FAULTS = ("--fault", "label-flip:share=0.25", "--fault", "duplicate:share=0.25", "--fault", "free-rider:share=0.125")


def dealt(labels, noise=None, faults=None, **facts):
    """The facts about clients with the histograms ``labels (N, K)``; ``faults`` is {spec: (N,) bool}."""
    labels, faults = np.array(labels), faults or {}
    N, K = labels.shape
    noise = np.zeros(N) if noise is None else np.array(noise)
    facts = dict(samples=labels.sum(axis=1), noise=noise, features=np.zeros(N), quality=1 - noise,
                 duplicate_of=np.full(N, -1), labels=labels) | {k: np.array(v) for k, v in facts.items()}
    facts |= {f"fault_{number}": np.array(who) for number, who in enumerate(faults.values())}
    data = SimpleNamespace(stream=None, classes=K, names=(), y_test=np.zeros(30), y_train=np.zeros(30, np.int64))
    indices = np.arange(labels.sum())
    federation = SimpleNamespace(dataset=data, indices=indices, validation=np.zeros(20), server=np.zeros(0))
    options = DEFAULTS | {"fault": list(faults)}
    return report.described(federation, {k: (v, "1", k) for k, v in facts.items()}, options)


def federation(options):
    """The ``Federation`` that the options deal out."""
    return dealing.federation(*of_data(options))


def test_numbers_of_each_client():
    clients = dealt([[4, 4, 0, 0], [2, 2, 2, 2], [0, 0, 0, 8], [0, 0, 0, 0]])["clients"]
    assert clients["samples"].tolist() == [8, 8, 8, 0] and clients["classes_held"].tolist() == [2, 4, 1, 0]
    np.testing.assert_allclose(clients["entropy_bits"], [1, 2, 0, 0])
    assert clients["top_class"].tolist() == [0, 0, 3, 0] and clients["top_share"].tolist() == [0.5, 0.25, 1, 0]
    np.testing.assert_allclose(clients["label_skew"][:3], [0.5, 1 / 6, 7 / 12])    # to 6/24, 6/24, 2/24, 10/24


def test_numbers_of_all_clients():
    who = {"label-flip": [True, False, True], "free-rider": [False, False, True]}
    facts = dealt([[4, 0], [0, 4], [6, 6]], [0.5, 0, 0.25], who, duplicate_of=[-1, 0, -1], features=[0, 0, 0.3])
    total = facts["summary"]
    assert (total["samples_min"], total["samples_median"], total["samples_max"]) == (4, 4, 12)
    assert total["entropy_bits_mean"] == pytest.approx(1 / 3) and total["entropy_bits_whole"] == pytest.approx(1)
    assert total["label_skew"] == pytest.approx(1 / 3) and total["label_skew_max"] == pytest.approx(0.5)
    assert total["noise_mean"] == 0.25 and total["noise_max"] == 0.5 and total["features_mean"] == pytest.approx(0.1)
    assert total["faulty"] == 2 and total["duplicates"] == 1 and total["clients"] == 3
    assert (facts["dealt"], facts["distinct"], facts["validation"], facts["test"]) == (20, 20, 20, 30)


def test_the_table_has_a_line_a_client():
    who = {"label-flip": [True, False, True], "free-rider:share=0.5": [False, False, True]}
    lines = report.partition_text(dealt([[4, 0], [0, 4], [6, 6]], [0.5, 0, 0.25], who, features=[0, 0, 0.3],
                                        duplicate_of=[-1, 0, -1])).split("\n")
    cells = [line.split() for line in lines]
    assert lines[0] == "digits: 2 classes; 20 training samples dealt out to 3 clients"
    assert lines[1] == "20 samples for validation, 30 for testing"
    assert lines[3] == "faults: label-flip (2 clients), free-rider:share=0.5 (1 client)"
    assert ["0", "4", "1", "0.00", "0:", "100", "%", "50.0", "%", "0", "0.500", "-", "label-flip"] in cells
    assert ["1", "4", "1", "0.00", "1:", "100", "%", "0.0", "%", "0", "1.000", "0", "-"] in cells
    both = ["label-flip,", "free-rider"]
    assert ["2", "12", "2", "1.00", "0:", "50", "%", "25.0", "%", "0.3", "0.750", "-", *both] in cells
    assert "faulty clients  2 of 3, 1 duplicate" in lines and "samples         min 4, median 4, max 12" in lines


def test_columns_that_say_nothing_are_left_out():
    text = report.partition_text(dealt([[4, 0], [0, 4]]))
    assert not any(name in text for name in ("features  ", "copy of", "faults"))
    assert "client  samples  classes  entropy  most frequent  wrong  quality" in text


def test_the_picture_shades_shares_and_marks_wrong_labels():
    faults = {"sign-flip": [True] + [False] * 4}
    facts = dealt([[100, 0], [65, 35], [80, 20], [90, 10], [49, 1]], [0, 0.5, 1, 0, 0.01], faults)
    legend, note, head, *lines = report.partition_picture(facts).split("\n")
    assert head == "client 0  1    samples: = right, x wrong" and note == "* faulty"
    assert lines == ["    0* ███     100 " + "=" * 20, "    1  ███▓▓▓  100 " + "=" * 10 + "x" * 10,
                     "    2  ███▒▒▒  100 " + "x" * 20, "    3  ███░░░  100 " + "=" * 20,
                     "    4  ███···   50 " + "=" * 10]
    assert legend.endswith("(%) by label:  · to 5  ░ to 15  ▒ to 30  ▓ to 60  █ to 100, blank: none")


@pytest.mark.parametrize("N, K", [(1, 2), (40, 10), (41, 26), (3, 47), (1200, 62), (50, 101), (20, 1000)])
def test_text_pictures_fit_whatever_the_numbers(N, K):
    gen = np.random.default_rng(0)
    facts = dealt(gen.integers(0, max(3, 200_000 // (N * K)), (N, K)), gen.random(N))
    lines = report.partition_picture(facts).split("\n") + report.partition_text(facts).split("\n")
    assert max(map(len, lines)) <= 100 and len(lines) <= 100 and "\033" not in "".join(lines)
    assert lines.count(f"... {plural(N - 40, 'client')} left out ...") == (2 if N > 40 else 0)
    shown = [*range(N)] if N <= 40 else [*range(20), *range(N - 20, N)]
    matches = [re.match(r" *(\d+) ", line) for line in lines if "samples" not in line]
    assert [int(match.group(1)) for match in matches if match] == shown * 2


def test_class_numbers_stand_above_their_column():
    for K in (10, 26, 47, 100, 101):
        labels = np.diag(np.ones(K, int))                              # client n holds class n only
        _, *lines = report.partition_picture(dealt(labels)).split("\n")
        head = next(line for line in lines if "client " in line and "samples" in line)
        for line in lines[lines.index(head) + 1:]:
            number = line.split()[0]
            numbers = head.partition("samples")[0].split()
            if number in numbers:
                assert line.index("█") == head.index(f" {number} ") + 1


@pytest.mark.parametrize("kind, first", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_saved_pictures_repeat(kind, first, tmp_path):
    gen = np.random.default_rng(0)
    faults = {f"scaled:factor={factor}": gen.random(30) < 0.3 for factor in (2, 3)}
    facts = dealt(gen.integers(0, 50, (30, 10)), gen.random(30), faults)
    paths = [tmp_path / f"{name}.{kind}" for name in "ab"]
    for path in paths:
        report.save_partition(facts, path)
    assert paths[0].read_bytes().startswith(first) and paths[0].stat().st_size > 5000
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("N, K", [(1, 2), (1000, 100)])
def test_saved_pictures_of_few_and_many_clients(N, K, tmp_path):
    report.save_partition(dealt(np.random.default_rng(0).integers(0, 9, (N, K))), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_a_clients_quality_is_its_worst_flaw():
    """30 % wrong labels and inputs of quality .5 leave .5, 80 % leave .2; the same with a worse fault among others."""
    options = DEFAULTS | {"dataset": "synthetic:samples=4000,size=2", "clients": 2, "partition": "iid",
                          "noise": "graded:low=0.3,high=0.8"}
    data = federation(options | {"fault": ["feature-noise:share=1,std=1"]})
    low, high = data.noise.argsort()
    assert data.noise[[low, high]] == pytest.approx([.3, .8], abs=.04) and data.faults.all()
    assert data.quality[low] == .5 and data.quality[high] == 1 - data.noise[high]
    assert np.array_equal(population(options | {"fault": []}, data)["quality"][0], data.quality)
    data = federation(options | {"clients": 4, "fault": ["feature-noise:share=0.5,std=1", "scaled:share=0.5,factor=4"]})
    noisy, scaled = data.faults
    wanted = [min(1 - noise, .5 if a else 1, .25 if b else 1) for noise, a, b in zip(data.noise, noisy, scaled)]
    assert noisy.sum() == scaled.sum() == 2 and data.quality == pytest.approx(wanted)


def test_the_command_shows_what_training_would_use(fedmpi, tmp_path):
    output = fedmpi(1, "data", "--clients", 8, *FAULTS, "--seed", 3, "--picture", tmp_path / "a.png")
    options = DEFAULTS | {"clients": 8, "seed": 3, "fault": list(FAULTS[1::2])}
    data = federation(options)
    facts = report.described(data, population(options, data), options)
    picture = tmp_path / "a.png"
    shown = [report.partition_text(facts, 80), report.partition_picture(facts, 80), f"picture: {picture}\n"]
    assert output == "\n\n".join(shown)
    assert "label-flip:share=0.25 (2 clients), duplicate:share=0.25 (2 clients)" in output
    assert "of them" in output and "copies" in output
    assert (tmp_path / "a.png").stat().st_size > 10000


def test_json_holds_all_of_it(fedmpi, tmp_path):
    facts = json.loads(fedmpi(1, "data", "--json", "--clients", 8, *FAULTS, "--picture", tmp_path / "a.svg"))
    clients = facts["clients"]
    copies = [n for n, source in enumerate(clients["duplicate_of"]) if source >= 0]
    assert facts["classes"] == 10 and len(copies) == 2 and facts["faults"] == list(FAULTS[1::2])
    for n in copies:
        source = clients["duplicate_of"][n]
        assert clients["samples"][n] == clients["samples"][source]
        assert clients["faulty"][n][1]
    assert facts["dealt"] - facts["distinct"] == sum(clients["samples"][n] for n in copies)
    assert sum(clients["samples"]) == facts["dealt"] == np.sum(clients["labels"])
    assert facts["summary"]["faulty"] == sum(map(any, clients["faulty"]))
    assert (tmp_path / "a.svg").exists()
    assert facts["distinct"] + facts["validation"] <= 1797 - facts["test"]


def test_many_clients(fedmpi):
    output = fedmpi(1, "data", "--clients", 100, "--partition", "iid", "--noise", "none")
    assert output.count("... 60 clients left out ...") == 2 and "dealt out to 100 clients" in output


@pytest.mark.parametrize("arguments, part", [
    (("--partition", "dirichlte"), "did you mean dirichlet?"),
    (("--partition", "dirichlet:beta=-1"), "beta must be"),
    (("--clients", 100000), "--partition dirichlet:beta=0.5: 1294 samples cannot give 100000 clients"),
    (("--noise", "symmetric:rate=2"), "must be in [0, 1]"),
    (("--fault", "free-rider:kind=lazy"), "kind must be zero, random or stale"),
    (("--dataset", "cifar10", "--data-dir", "nowhere"), "fedmpi fetch cifar10"),
    (("--train-samples", 99999), "--train-samples 99999: digits has"),
    (("--picture", "a.gif"), "must be .png"),
    (("--picture", "nowhere/a.png"), "there is no folder"),
    (("--rounds", 3), "No such option")])
def test_mistakes_are_one_line_and_exit_code_2(fedmpi, arguments, part):
    output = fedmpi(1, "data", *arguments, code=2)
    assert part in output and output.startswith("error: ") and output.count("\n") == 1


def test_only_rank_0_says_anything(fedmpi):
    one = fedmpi(1, "data", "--clients", 4)
    assert fedmpi(2, "data", "--clients", 4) == one
