"""Text from trained models: the odds of the next token, and the command."""

import numpy as np
import pytest
import torch

from fedmpi.methods.datasets.vocabulary import vocabulary
from fedmpi.read import trained
from fedmpi.read.generate import Writer, drawn, generated, writer

ODDS = torch.tensor([.1, .4, .2, .3], dtype=torch.float64)
SMALL = ("--clients", 2, "--rounds", 2, "--local-steps", 4, "--batch-size", 4, "--lr", 0.01)
GPT = ("--task", "lm", "--model", "gpt:depth=1,width=16,heads=2", "--strategy", "fedavg", "--pruner",
       "static:sparsity=0.5")


def shares(n=4000, **options):
    gen = np.random.default_rng(0)
    ids = [drawn(ODDS.log(), gen=gen, **options) for _ in range(n)]
    return np.bincount(ids, minlength=4) / n


@pytest.mark.parametrize("temperature, top_k, expected", [
    (1.0, 0, [.1, .4, .2, .3]),
    (1.0, 2, [0, 4 / 7, 0, 3 / 7]),
    (0.5, 0, np.array([1, 16, 4, 9]) / 30),
    (1.0, 99, [.1, .4, .2, .3]),
    (0.0, 0, [0, 1, 0, 0])])
def test_tokens_come_as_often_as_their_odds_say(temperature, top_k, expected):
    assert shares(temperature=temperature, top_k=top_k) == pytest.approx(expected, abs=.02)


def test_of_equal_logits_the_first_is_the_largest():
    equal = torch.zeros(5, dtype=torch.float64)
    assert drawn(equal, 0, 0, None) == 0
    gen = np.random.default_rng(0)
    assert {drawn(equal, 1, 2, gen) for _ in range(50)} == {0, 1}


def test_the_model_sees_the_newest_tokens_alone():
    seen = []

    def logits(ids):
        seen.append(ids.tolist())
        following = torch.zeros(5, dtype=torch.float64)
        following[(ids[-1] + 1) % 5] = 9
        return following

    author = Writer(logits, vocabulary([], 5), window=3)
    assert list(generated(author, [4], 4, 0, 0, seed=0)) == [0, 1, 2, 3]
    assert seen == [[4], [4, 0], [4, 0, 1], [0, 1, 2]]


# --- runs ---


@pytest.fixture(scope="module")
def run(fedmpi, tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "book.txt").write_text("It was the best of times, it was the worst of times.\n" * 40)
    fedmpi(1, "train", *GPT, *SMALL, "--dataset", "text:file=book.txt,context=8", "--data-dir", folder,
           "--keep", 2, "--save-every", 1, "--out", folder / "run.h5")
    (folder / "book.txt").unlink()
    return folder / "run.h5"


def test_logits_are_those_of_the_model_that_was_evaluated(run):
    model = trained.trained(run)
    author = writer(model, run)
    assert author.window == 8 and author.vocabulary.kind == "characters"
    long = torch.arange(8) % 3
    from fedmpi.build.parts import network_of
    inputs = model.about["inputs"]
    network = network_of(model.about["options"])(inputs["shape"], inputs["outputs"])
    network.load_state_dict(model.state)
    expected = network.eval()(long[None])[0].double()
    for length in (1, 5, 8):
        torch.testing.assert_close(author.logits(long[:length]), expected[length - 1], rtol=1e-4, atol=1e-5)


def test_a_seed_makes_a_text(fedmpi, run, tmp_path):
    def text(*options):
        """The text, and the line about the model before it."""
        about, _, rest = fedmpi(1, "sample", *options).partition("\n")
        return rest, about

    first, about = text(run, "--tokens", 40)
    assert len(first) == 41 and first.endswith("\n") and "after round 2" in about
    assert "characters" in about
    again, _ = text(run, "--tokens", 40, "--seed", 0)
    other, _ = text(run, "--tokens", 40, "--seed", 1)
    assert first == again != other
    going_on, _ = text(run, "--tokens", 5, "--prompt", "It was")
    assert going_on.startswith("It was") and len(going_on) == 12
    earlier, about = text(run, "--tokens", 40, "--round", 1)
    assert "after round 1" in about
    surest, _ = text(run, "--tokens", 9, "--temperature", 0)
    assert surest == text(run, "--tokens", 9, "--top-k", 1)[0]
    fedmpi(1, "export-model", run, "--out", tmp_path / "m.safetensors", "--sparse")
    assert text(tmp_path / "m.safetensors", "--tokens", 40)[0] == first


def test_tokens_without_names_are_printed_as_numbers(fedmpi, tmp_path):
    fedmpi(1, "train", *GPT, *SMALL, "--dataset", "markov:tokens=600,test=200,context=8", "--out",
           tmp_path / "run.h5")
    told = fedmpi(1, "sample", tmp_path / "run.h5", "--prompt", "3 15", "--tokens", 4)
    assert "16 tokens have no names, so that their numbers follow" in told
    numbers = told.splitlines()[-1].split()
    assert len(numbers) == 6 and numbers[:2] == ["3", "15"] and max(map(int, numbers)) < 16


def test_a_large_vocabulary_is_no_other_case(monkeypatch, run):
    """Beyond so many tokens the network answers by its features and its head."""
    model = trained.trained(run)
    ids = torch.tensor([0, 1, 2])
    whole = writer(model, run).logits(ids)
    monkeypatch.setattr("fedmpi.methods.models.transformer.LARGE", 4)
    torch.testing.assert_close(writer(model, run).logits(ids), whole)


def test_what_makes_no_text_is_refused_in_one_line(fedmpi, run, tmp_path):
    fedmpi(1, "train", "--clients", 2, "--rounds", 1, "--local-epochs", 1, "--train-samples", 100, "--out",
           tmp_path / "digits.h5")
    told = fedmpi(1, "sample", tmp_path / "digits.h5", code=2)
    assert told.count("\n") == 1 and "a run of --task classification, whose model makes no text" in told
    told = fedmpi(1, "sample", run, "--prompt", "Zz", code=2)
    assert told.count("\n") == 1 and "none of them is 'Z', 'z'" in told
    for options in (("--temperature", -1), ("--tokens", 0), ("--top-k", -1), ("--round", 99)):
        assert fedmpi(1, "sample", run, *options, code=2).count("\n") == 1
