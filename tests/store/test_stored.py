"""Large arrays in checkpoints: as they are, as values and bits, or as bits; to the same bits."""

import hashlib
import os
import threading

import h5py
import numpy as np
import pytest
import torch

from fedmpi.store import checkpoint, stored
from fedmpi.store.checkpoint import load_checkpoint, write_checkpoint


@pytest.fixture(params=["at once", "beside the run"])
def small(request, monkeypatch):
    """Pieces and large arrays of a few bytes."""
    monkeypatch.setattr(stored, "LARGE_BYTES", 100)
    monkeypatch.setattr(stored, "PIECE_BYTES", 256)
    if request.param == "beside the run":
        monkeypatch.setattr(checkpoint, "LARGE_BYTES", 1)


def sparse(share, n=1000, dtype=torch.float32):
    gen = torch.Generator().manual_seed(0)
    values = torch.randn(n, generator=gen).to(dtype)
    return torch.where(torch.rand(n, generator=gen) < share, values, 0)


def saved(folder, state):
    write_checkpoint(folder, state, 3, run_id="r", keep=2)()
    return load_checkpoint(folder, run_id="r")


@pytest.mark.parametrize("share", [0, 0.1, 0.8, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.complex64])
def test_an_array_comes_back_to_the_bits(dtype, share, tmp_path, small):
    x = sparse(share, dtype=dtype)
    # Zero, negative, has bits.
    x[5] = -x.new_zeros(())
    state, t = saved(tmp_path, {"x": x, "shaped": x[:200].view(4, 50)})
    assert t == 3 and state["x"].dtype == dtype
    assert torch.equal(state["x"].view(torch.uint8), x.view(torch.uint8))
    assert torch.equal(state["shaped"], x[:200].view(4, 50))


def test_masks_take_a_bit_and_pruned_weights_nothing(tmp_path, small):
    x = sparse(0.1, 100_000)
    mask = x != 0
    state, _ = saved(tmp_path, {"x": x, "mask": mask, "numpy": mask.numpy()})
    assert torch.equal(state["mask"], mask) and state["mask"].dtype == torch.bool
    assert state["numpy"].dtype == bool and (state["numpy"] == mask.numpy()).all()
    with h5py.File(tmp_path / "000003.h5") as f:
        assert f["state/mask"].nbytes == 12_500
        assert f["state/x/values"].nbytes == 4 * int(mask.sum()) and f["state/x/bits"].nbytes == 12_500


def test_a_damaged_piece_is_refused(tmp_path, small):
    from fedmpi.core.errors import CheckpointError
    saved(tmp_path, {"x": sparse(0.1)})
    path = tmp_path / "000003.h5"
    with h5py.File(path) as f:
        place = f["state/x/values"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256"):
        load_checkpoint(tmp_path, run_id="r")


def test_a_large_state_is_written_after_its_place_is_there(tmp_path, small, monkeypatch):
    monkeypatch.setattr(checkpoint, "LARGE_BYTES", 1)
    settle = write_checkpoint(tmp_path, {"x": torch.ones(1000)}, 1, run_id="r", keep=2)
    assert os.listdir(tmp_path) == ["000001.h5.tmp"]
    # Its bytes are allocated: a full disk is met before the next round.
    assert os.path.getsize(tmp_path / "000001.h5.tmp") > 4000
    thread = threading.Thread(target=settle)
    thread.start()
    thread.join()
    assert load_checkpoint(tmp_path, run_id="r")[0]["x"].sum() == 1000


def test_checkpoints_from_before_are_read(tmp_path):
    """Their arrays were all held as they are, and their sum was over the same bytes."""
    x = np.arange(300_000, dtype=np.float32) * (np.arange(300_000) % 10 == 0)
    manifest = (b'{"run_id": "r", "round": 2, "entries": [{"path": ["x"], "kind": "tensor", "dtype": "float32", '
                b'"shape": [300000]}]}')
    digest = hashlib.sha256(manifest)
    digest.update(x.tobytes())
    with h5py.File(tmp_path / "000002.h5", "w") as f:
        f.attrs.update(filetype="fedmpi-checkpoint", run_id="r", round=2, sha256=digest.hexdigest())
        f["manifest"] = np.frombuffer(manifest, np.uint8)
        f["state/x"] = x
    state, t = load_checkpoint(tmp_path, run_id="r")
    assert t == 2 and np.array_equal(state["x"].numpy(), x)
