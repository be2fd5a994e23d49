"""``--init-from``: a model begins with a file's values, or one line says why not."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import contracts
from fedmpi.build.start import start
from fedmpi.core.adapters import merged_state
from fedmpi.core.errors import UserError
from fedmpi.methods.models.gpt import gpt
from fedmpi.read import adapters, trained
from fedmpi.store import read_run, verify

OPTIONS = {"model": "gpt:depth=1", "init_from": "", "also_model": [], "server_model": None}
SMALL = ("--clients", 3, "--rounds", 2, "--local-epochs", 1, "--train-samples", 200, "--lr", 0.01,
         "--model", "vit:depth=1,width=16,heads=2", "--contribution", "size", "--pruner", "dense")


def small_gpt(seed=0, **options):
    torch.manual_seed(seed)
    return gpt((8,), 11, depth=1, width=16, heads=2, **options)


@pytest.fixture
def saved(tmp_path):
    """``saved(tensors) -> options`` with a file of them."""
    def save(tensors):
        path = str(tmp_path / "model.safetensors")
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
        return OPTIONS | {"init_from": path}

    return save


def test_without_a_file_the_model_stays():
    assert start(small_gpt(), OPTIONS | {"init_from": None}) == ""


def test_a_file_of_the_same_names_replaces_all_values(saved):
    one, other = small_gpt(0), small_gpt(1)
    digest = start(one, saved(other.state_dict()))
    assert len(digest) == 16
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_halves_become_floats_and_a_tied_tensor_needs_one_name(saved):
    one, other = small_gpt(0, tied=True), small_gpt(1, tied=True)
    state = {name: tensor.bfloat16() for name, tensor in other.state_dict().items() if name != "head.weight"}
    start(one, saved(state))
    assert torch.equal(one.head.weight, other.table.weight.bfloat16().float())


def misfit(state):
    """The state with three faults."""
    state = dict(state)
    del state["blocks.0.mlp.up.weight"]
    state["tail.weight"] = torch.zeros(2)
    state["head.weight"] = torch.zeros(12, 16)
    return state


def test_a_misfit_is_told_in_one_line(saved):
    options = saved(misfit(small_gpt().state_dict()))
    with pytest.raises(UserError) as told:
        start(small_gpt(), options)
    assert str(told.value) == (
        f"--init-from {options['init_from']} does not fit --model gpt:depth=1: missing blocks.0.mlp.up.weight; "
        "unexpected tail.weight; head.weight: got (12, 16), expected (11, 16); give the options of the model that was "
        "trained, or another file")


def test_values_that_are_not_finite_or_differ_where_they_are_tied_are_refused(saved):
    state = small_gpt().state_dict()
    state["head.weight"] = torch.full((11, 16), torch.nan)
    with pytest.raises(UserError, match="head.weight holds values that are not finite"):
        start(small_gpt(), saved(state))
    with pytest.raises(UserError, match="is tied to another tensor"):
        start(small_gpt(tied=True), saved(small_gpt(1).state_dict()))


def test_no_file_and_no_safetensors_are_told(tmp_path):
    text = tmp_path / "text.safetensors"
    text.write_text("no tensors")
    for path, told in ((tmp_path / "none.safetensors", "there is no such file"), (text, "not a safetensors file")):
        with pytest.raises(UserError, match=told):
            start(small_gpt(), OPTIONS | {"init_from": str(path)})


@pytest.fixture(scope="module")
def base(fedmpi, tmp_path_factory):
    """A trained model's file, and its folder."""
    folder = tmp_path_factory.mktemp("base")
    fedmpi(1, "train", *SMALL, "--strategy", "fedavg", "--out", folder / "base.h5")
    fedmpi(1, "export-model", folder / "base.h5", "--out", folder / "base.safetensors")
    return folder / "base.safetensors"


@pytest.mark.parametrize("strategy, kind", [("fedavg", "none"), ("fedavg", "lora:rank=2"), ("flora", "lora:rank=2")])
def test_a_run_begins_where_another_ended_and_its_model_is_written(fedmpi, base, tmp_path, strategy, kind):
    out, file = tmp_path / "tuned.h5", tmp_path / "tuned.safetensors"
    more = ("--strategy", strategy, "--adapters", kind, "--init-from", base)
    fedmpi(1, "train", *SMALL, *more, "--out", out, "--until", 1)
    fedmpi(2, "train", "--resume", out)
    assert read_run(out).attrs["init_digest"]
    fedmpi(1, "export-model", out, "--out", file)
    state, before = load_file(file), load_file(base)
    assert state.keys() == before.keys()
    frozen = ("patches.weight", "head.weight", "blocks.0.mlp.up.weight")
    for name in frozen:
        assert torch.equal(state[name], before[name]) == (kind != "none")
    assert not torch.equal(state["blocks.0.attention.query.weight"], before["blocks.0.attention.query.weight"])


def test_clients_with_values_of_their_own_begin_with_those_of_the_file(fedmpi, base, tmp_path):
    files = []
    for ranks, until in ((1, 2), (3, 2), (1, 1)):
        out = tmp_path / f"{ranks}-{until}.h5"
        fedmpi(ranks, "train", *SMALL, "--strategy", "diloco:fragments=2,inner=reset", "--init-from", base,
               "--until", until, "--out", out)
        files.append(out)
    fedmpi(3, "train", "--resume", files[-1])
    for other in files[1:]:
        assert not list(verify(files[0], other))
    # In round 1 all clients train as those of a strategy without values of their own.
    whole = tmp_path / "whole.h5"
    fedmpi(1, "train", *SMALL, "--strategy", "diloco:inner=reset", "--init-from", base, "--until", 1, "--out", whole)
    losses = [read_run(path).rounds["train_loss"][0] for path in (files[0], whole)]
    assert losses[0] == losses[1]


def test_the_exported_model_has_the_outputs_of_the_one_that_was_evaluated(fedmpi, base, tmp_path):
    out = tmp_path / "tuned.h5"
    fedmpi(1, "train", *SMALL, "--strategy", "fedavg", "--adapters", "lora:rank=2", "--init-from", base, "--out", out)
    run = read_run(out)
    at_end = trained.restored(out, run, None, print)
    plain = contracts.make(contracts.catalog.MODELS, "vit:depth=1,width=16,heads=2", (1, 8, 8), 10)
    plain.load_state_dict(merged_state(at_end.network))
    inputs = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(plain.eval()(inputs), at_end.network.eval()(inputs), rtol=1e-4, atol=1e-5)
    alone = adapters.trained_adapters(out)
    name = "base_model.model.blocks.0.attention.query.lora_A.weight"
    assert torch.equal(alone.tensors[name], at_end.network.blocks[0].attention.query.lora_A)
    assert alone.config["r"] == 2 and alone.config["lora_alpha"] == 16 and alone.left_out == []
    assert alone.config["target_modules"][0] == "blocks.0.attention.query"
    told = fedmpi(1, "export-model", out, "--adapters-only", "--out", tmp_path / "peft")
    assert "4 adapters, 256 values" in told
    assert load_file(tmp_path / "peft" / "adapter_model.safetensors").keys() == alone.tensors.keys()


def test_adapters_that_merges_have_put_into_the_model_are_not_exported(fedmpi, base, tmp_path):
    out = tmp_path / "flora.h5"
    fedmpi(1, "train", *SMALL, "--strategy", "flora", "--adapters", "lora:rank=2", "--out", out)
    told = fedmpi(1, "export-model", out, "--adapters-only", "--out", tmp_path / "peft", code=2)
    assert "adds adapters to the model in each round" in told
    told = fedmpi(1, "export-model", base.with_name("base.h5"), "--adapters-only", "--out", tmp_path / "peft", code=2)
    assert "the run has no adapters" in told


def test_another_file_is_no_way_on(fedmpi, base, tmp_path):
    out, copy = tmp_path / "tuned.h5", tmp_path / "other.safetensors"
    fedmpi(1, "train", *SMALL, "--strategy", "fedavg", "--init-from", base, "--out", out, "--until", 1)
    state = load_file(base)
    save_file({name: tensor + 1 for name, tensor in state.items() if not name.endswith(".mask")}, copy)
    told = fedmpi(1, "train", "--resume", out, "--init-from", copy, code=2)
    assert "began from another file" in told


def test_a_model_of_other_tokens_is_refused(fedmpi, tmp_path):
    lm = ("--task", "lm", "--model", "gpt:depth=1,width=16,heads=2", "--clients", 2, "--rounds", 1, "--local-steps", 1,
          "--data-dir", tmp_path, "--strategy", "fedavg", "--pruner", "dense", "--contribution", "size")
    for name, letters in (("one", "abcd"), ("two", "abce")):
        (tmp_path / f"{name}.txt").write_text(letters * 200)
    fedmpi(1, "train", *lm, "--dataset", "text:file=one.txt,context=8", "--out", tmp_path / "one.h5")
    fedmpi(1, "export-model", tmp_path / "one.h5", "--out", tmp_path / "one.safetensors")
    told = fedmpi(1, "train", *lm, "--dataset", "text:file=two.txt,context=8", "--out", tmp_path / "two.h5",
                  "--init-from", tmp_path / "one.safetensors", code=2)
    more = ("--dataset", "text:file=one.txt,context=8", "--init-from", tmp_path / "one.safetensors", "--adapters",
            "lora:rank=2", "--out", tmp_path / "tuned.h5")
    fedmpi(1, "train", *lm, *more)
    assert "abcd" in fedmpi(1, "sample", tmp_path / "tuned.h5", "--prompt", "abcd", "--tokens", 3)
    assert "was trained on other tokens than those of the data set: token 3 is 'd' there and 'e' here" in " ".join(
        told.split())
