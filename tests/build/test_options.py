"""Where options come from: flags, --config FILE.toml, --like RUN.h5, in this order; mistakes are told in one line."""

import json
import subprocess
import sys

import h5py
import pytest

from fedmpi.build.options import DEFAULTS, completed
from fedmpi.store import read_run

SMALL = ("--dataset", "synthetic:samples=200", "--model", "logistic", "--clients", 4, "--local-epochs", 1,
         "--rounds", 1)


@pytest.fixture(scope="module")
def earlier(fedmpi, tmp_path_factory):
    path = tmp_path_factory.mktemp("like") / "a.h5"
    fedmpi(1, "train", *SMALL, "--lr", 0.05, "--fault", "scaled", "--seed", 3, "--until", 1, "--out", path)
    return path


def options(path):
    return read_run(path).attrs["options"]


@pytest.mark.parametrize("text, line", [
    ("round = 2", "unknown round; did you mean rounds?"), ("[train]\nrounds = 2", "unknown train"),
    ("resume = 'a.h5'", "unknown resume"), ("zzz = 1", "unknown zzz; known are dataset, partition"),
    ("local-epoch = 2", "unknown local_epoch; did you mean local_epochs?"),
    ("weight_decay = 0.5", "weight_decay is an option of the optimiser: optimiser = 'sgd:weight_decay=0.5'"),
    ("optimiser = 'sgd:weight_decay=0.1'\nmomentum = 0.5",
     "the optimiser: optimiser = 'sgd:weight_decay=0.1,momentum=0.5'"),
    ("strategy = 'fedavg:weight_decay=0.1'", "say --optimiser sgd:momentum=0.9,weight_decay=0.1"),
    ("local_steps = 3\nlocal_epochs = 2", "--local-epochs 2 and --local-steps 3: one of them says"),
    ("local_epochs = 0", "--local-epochs 0 and --local-steps 0: one of them says"),
    ("rounds = 2.5", "rounds must be a whole number, got 2.5"),
    ("rounds = true", "rounds must be a whole number, got True"),
    ('rounds = "2"', "rounds must be a whole number, got '2'"), ("lr = 'fast'", "lr must be a number, got 'fast'"),
    ("rounds = 0", "rounds: 0 is not in the range x>=1"), ("lr = -1", "lr: -1.0 is not in the range"),
    ("lr = nan", "lr must be a finite number"),
    ("strategy = 3", "strategy must be text, got 3"), ("strategy = ['fedavg']", "strategy must be text"),
    ("device = 'gpu'", "device: 'gpu' is not one of"), ("fault = 3", "fault must be text or a list of texts"),
    ("fault = ['scaled', 1]", "fault must be text or a list of texts"), ("fault = 'scale'", "did you mean scaled?"),
    ("strategy = 'fedavgg'", "did you mean fedavg?"), ("rounds = 1\nrounds = 2", "overwrite"),
    ("local-epochs = 1\nlocal_epochs = 2", "the same option, given twice"), ("rounds =", "nvalid"), ("\xff", "nvalid")])
def test_a_wrong_file_is_one_line(fedmpi, tmp_path, text, line):
    config = tmp_path / "job.toml"
    config.write_bytes(text.encode("latin-1"))
    output = fedmpi(1, "train", "--config", config, "--out", tmp_path / "a.h5", code=2)
    assert line in output and output.startswith("error: ") and len(output.splitlines()) == 1


@pytest.mark.parametrize("words, line", [
    (("--weight-decay", 0.9), "weight_decay is an option of the optimiser: --optimiser sgd:weight_decay=0.9"),
    (("--weight-decay=0.9", "--optimiser", "adamw"), "--optimiser adamw:weight_decay=0.9"),
    (("--optimiser", "sgd:nesterov=true", "--momentum", 0.9),
     "of the optimiser: --optimiser sgd:nesterov=true,momentum=0.9"),
    (("--mu", 0.1, "--strategy=feddst"), "--strategy feddst:mu=0.1"),
    (("--beta", 0.1), "beta is an option of the partition: --partition dirichlet:beta=0.1"),
    (("--sparsity", 0.9, "--pruner", "rigl"), "sparsity is an option of the pruner: --pruner rigl:sparsity=0.9"),
    (("--sparsity",), "--pruner static:sparsity=VALUE"),
    (("--temperature", 2), "the weighting: --weighting softmax:temperature=2, or of the sampler: "
     "--sampler contribution:temperature=2"),
    (("--half-life", 7), "half_life is an option of the pruner: --pruner prunefl:half_life=7"),
    (("--round", 7), "--rounds"), (("--zzz", 7), "No such option '--zzz'")])
@pytest.mark.parametrize("name", ["train", "sbatch"])
def test_an_option_of_a_part_is_told_with_the_part(fedmpi, name, words, line):
    output = fedmpi(1, name, *words, code=2)
    assert line in output and output.startswith("error: ") and len(output.splitlines()) == 1


def test_a_missing_file_is_one_line(fedmpi, tmp_path):
    output = fedmpi(1, "train", "--config", tmp_path / "none.toml", code=2)
    assert "No such file" in output and len(output.splitlines()) == 1


def test_flags_before_config_before_like_before_defaults(fedmpi, tmp_path, earlier):
    config = tmp_path / "job.toml"
    config.write_text('lr = 1\nseed = 5\nfault = ["sign-flip:share=0.5", "scaled"]\n')
    out = [tmp_path / f"{number}.h5" for number in range(2)]
    places = (["--like", earlier, "--config", config], ["--config", config, "--like", earlier])
    told = [fedmpi(1, "train", *place, "--seed", 6, "--out", path) for place, path in zip(places, out)]
    for path, output in zip(out, told):
        found = options(path)
        assert (found["seed"], found["lr"], found["clients"], found["batch_size"]) == (6, 1, 4, 10)
        assert found["fault"] == ["sign-flip:share=0.5", "scaled"]
        assert ("but fault sign-flip:share=0.5, scaled (was scaled); lr 1.0 (was 0.05); seed 6 (was 3)" in output
                or all(text in output for text in ("lr 1.0 (was 0.05)", "seed 6 (was 3)", "scaled (was scaled)")))


def test_a_flag_that_may_be_given_several_times_replaces_those_of_the_file(fedmpi, tmp_path, earlier):
    fedmpi(1, "train", "--like", earlier, "--fault", "sign-flip", "--out", tmp_path / "b.h5")
    assert options(tmp_path / "b.h5")["fault"] == ["sign-flip"]


def test_a_run_like_another_without_changes_is_the_same_run(fedmpi, tmp_path, earlier):
    assert "in all options: the same run again" in fedmpi(1, "train", "--like", earlier, "--out", tmp_path / "b.h5")
    assert "agree" in fedmpi(1, "verify", earlier, tmp_path / "b.h5")


def test_nonsense_to_be_like_is_one_line(fedmpi, tmp_path, earlier):
    (tmp_path / "text.h5").write_text("no run")
    with h5py.File(earlier, "r") as source, h5py.File(tmp_path / "newer.h5", "w") as f:
        for name in source:
            source.copy(name, f)
        f.attrs.update(dict(source.attrs) | {"options": json.dumps(json.loads(source.attrs["options"]) | {"magic": 1})})
    for given, line in ((["--like", tmp_path / "none.h5"], "none.h5"), (["--like", tmp_path / "text.h5"], "text.h5"),
                        (["--like", tmp_path / "newer.h5"], "whose magic this one does not know"),
                        (["--like", earlier, "--resume", earlier], "no place beside --resume"),
                        (["--like", earlier, "--rounds", 0], "not in the range")):
        output = fedmpi(1, "train", *given, code=2)
        assert line in output and len(output.splitlines()) == 1


def test_runs_that_start_in_the_same_second_take_files_of_their_own():
    code = ("import time; time.strftime = lambda form: 'now'; from fedmpi.commands.run_options import run_file; "
            "print(run_file(3))")
    names = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
             for _ in range(2)]
    assert names[0] != names[1] and all(name.startswith("runs/now-3-") for name in names)


def test_labels_stay_as_they_are_once_a_data_set_is_named(fedmpi, tmp_path):
    config = tmp_path / "job.toml"
    config.write_text('dataset = "synthetic:samples=200"\n')
    ways = {"flag": SMALL, "file": ("--config", config, *SMALL[2:])}
    for way, given in ways.items():
        told = fedmpi(1, "train", *given, "--out", tmp_path / f"{way}.h5")
        assert "partition dirichlet:beta=0.5, noise none (no label is changed)" in told, way
        run = read_run(tmp_path / f"{way}.h5")
        assert run.attrs["options"]["noise"] == "none" and not run.population["noise"].any(), way
    plan = fedmpi(1, "train", "--dry-run", *SMALL)
    assert "partition dirichlet:beta=0.5, noise none (no label is changed)" in plan
    assert "noise none" in fedmpi(1, "data", *SMALL[:2], "--clients", 4)


def test_the_demonstration_has_wrong_labels_and_so_has_what_asks_for_them(fedmpi):
    assert completed({}) == completed({"dataset": None}) == DEFAULTS and DEFAULTS["noise"] == "graded"
    assert completed({"dataset": "digits"}) == DEFAULTS | {"noise": "none"}
    assert completed({"dataset": "digits", "noise": "graded"}) == DEFAULTS
    plan = fedmpi(1, "train", "--dry-run", *SMALL[2:])
    assert "noise graded (0 to 80 % of a client's labels are wrong)" in " ".join(plan.split())
    assert "noise graded" in fedmpi(1, "data")


def test_a_run_like_one_with_wrong_labels_has_them_too(fedmpi, tmp_path):
    fedmpi(1, "train", *SMALL, "--noise", "symmetric", "--out", tmp_path / "a.h5")
    fedmpi(1, "train", "--like", tmp_path / "a.h5", "--dataset", "synthetic:samples=300", "--out", tmp_path / "b.h5")
    assert options(tmp_path / "b.h5")["noise"] == "symmetric"


def test_a_sweep_of_a_named_data_set_leaves_labels_as_they_are(fedmpi, tmp_path):
    (tmp_path / "grid.toml").write_text(
        f'folder = "{tmp_path}/runs"\n[fixed]\nclients = 4\nrounds = 1\nlocal_epochs = 1\nmodel = "logistic"\n'
        '[grid]\ndataset = ["synthetic:samples=200", "digits"]\n[[run]]\nseed = 1\n')
    fedmpi(1, "sweep", tmp_path / "grid.toml", "--here")
    noises = {read_run(path).attrs["options"]["seed"]: set() for path in (tmp_path / "runs").glob("*.h5")}
    for path in (tmp_path / "runs").glob("*.h5"):
        noises[options(path)["seed"]].add(options(path)["noise"])
    assert noises == {0: {"none"}, 1: {"graded"}}


def test_an_unknown_kind_is_told_with_the_kinds_once(fedmpi):
    told = fedmpi(1, "list", "prunner", code=2)
    assert "'prunner' is not one of" in told and told.count("timing") == 1


# --- former names ---


FLEET = ("--strategy", "fedavg", "--devices", "drawn", "--cohort", 2)


@pytest.fixture(scope="module")
def former(fedmpi, tmp_path_factory):
    """The run file of an asynchronous run from before --timing had this name, stopped after a round."""
    path = tmp_path_factory.mktemp("former") / "a.h5"
    fedmpi(1, "train", *SMALL, *FLEET, "--timing", "fedbuff:buffer=2", "--rounds", 2, "--until", 1, "--out", path)
    with h5py.File(path, "r+") as f:
        recorded = json.loads(f.attrs["options"])
        recorded["aggregation"] = recorded.pop("timing")
        f.attrs["options"] = json.dumps(recorded)
        parts = json.loads(f.attrs["parts"])
        for part in parts:
            if part["kind"] == "timing":
                part["kind"] = "aggregation"
        f.attrs["parts"] = json.dumps(parts)
    return path


TOLD = "--aggregation is called --timing now"


def test_a_former_flag_does_the_same_and_says_so(fedmpi, tmp_path):
    path = tmp_path / "b.h5"
    said = fedmpi(1, "train", *SMALL, *FLEET, "--aggregation=fedbuff:buffer=2", "--out", path)
    assert said.count(TOLD) == 1
    assert options(path)["timing"] == "fedbuff:buffer=2"


def test_a_former_name_in_a_file_does_the_same_and_says_so(fedmpi, tmp_path):
    config, path = tmp_path / "job.toml", tmp_path / "b.h5"
    config.write_text("aggregation = 'fedbuff:buffer=2'")
    said = fedmpi(1, "train", *SMALL, *FLEET, "--config", config, "--out", path)
    assert said.count(TOLD) == 1
    assert options(path)["timing"] == "fedbuff:buffer=2"


def test_a_former_name_beside_the_name_of_today_is_refused(fedmpi, tmp_path):
    config = tmp_path / "job.toml"
    config.write_text("aggregation = 'sync'\ntiming = 'sync'")
    assert "the same option, given twice" in fedmpi(1, "train", "--config", config, code=2)


def test_a_run_file_with_a_former_name_is_read_followed_and_resumed(fedmpi, former, tmp_path):
    assert options(former)["timing"] == "fedbuff:buffer=2"
    assert "timing fedbuff:buffer=2" in fedmpi(1, "show", former)
    same = fedmpi(1, "train", "--like", former, "--out", tmp_path / "like.h5")
    assert "in all options: the same run again" in same
    fedmpi(1, "train", "--resume", former)
    assert fedmpi(1, "verify", former, tmp_path / "like.h5")
