"""Sparse kernels give the dense products, and the bench its map."""

import json

import pytest
import torch

from fedmpi.bench import kernels, sparse


@pytest.mark.parametrize("batch", [3, 2 * kernels.TILE + 1, kernels.BY_ROWS])
@pytest.mark.parametrize("name", ["masked", "csr", "bsr", "single", "block"])
@pytest.mark.filterwarnings("ignore:Sparse (CSR|BSR)")
def test_products_are_those_of_dense_weights(name, batch):
    torch.manual_seed(0)
    mask = sparse.random_blocks(32, 0.7, 8)
    W = torch.randn(32, 32)
    if name in sparse.OWN:
        kernel = kernels.own(W, mask, name)
    else:
        options = (8,) if name == "bsr" else ()
        kernel = getattr(kernels, name)(W, mask, *options)
    X, dY = torch.randn(batch, 32), torch.randn(batch, 32)
    # The weights have moved since the kernel was made.
    W.copy_(torch.randn(32, 32) * mask)
    torch.testing.assert_close(kernel.forward(X), X @ W.T, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(kernel.backward_x(dY), dY @ W, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(kernel.backward_w(dY, X), (dY.T @ X) * mask, atol=2e-3, rtol=1e-4)


def test_bf16_is_near():
    torch.manual_seed(0)
    W = torch.randn(16, 16)
    X, dY = torch.randn(4, 16), torch.randn(4, 16)
    kernel = kernels.bf16(W, None)
    torch.testing.assert_close(kernel.forward(X), X @ W.T, atol=0.2, rtol=0.05)
    torch.testing.assert_close(kernel.backward_x(dY), dY @ W, atol=0.2, rtol=0.05)
    torch.testing.assert_close(kernel.backward_w(dY, X), dY.T @ X, atol=0.2, rtol=0.05)


def test_masks_have_their_sparsity_in_whole_blocks():
    mask = sparse.random_blocks(64, 0.75, 8)
    assert int(mask.sum()) == 1024
    assert set(mask.view(8, 8, 8, 8).sum(dim=(1, 3)).flatten().tolist()) == {0, 64}


@pytest.mark.parametrize("speeds, least", [([0.5, 1.2, 3.0], 0.9), ([0.5, 0.9, 0.9], None), ([2, 0.9, 2], 0.99)])
def test_the_crossover_is_where_no_larger_sparsity_loses(speeds, least):
    rows = [{"kernel": "csr", "product": "step", "sparsity": sparsity, "times_as_fast": speed}
            for sparsity, speed in zip((0.5, 0.9, 0.99), speeds)]
    assert sparse.crossover(rows, "csr", "step") == least


def test_the_bench_prints_its_map_and_writes_it(fedmpi, tmp_path):
    path = tmp_path / "sparse.json"
    output = fedmpi(1, "bench", "sparse", "--n", 32, "--batch", 4, "--sparsity", 0.5, "--sparsity", 0.95,
                    "--repeats", 1, "--json", path)
    assert "faster than dense from which sparsity on" in output and "the aim is 1.5" in output
    rows = json.loads(path.read_text())["rows"]
    cpu = [row for row in rows if row["device"] == "cpu"]
    assert len(cpu) == 2 * 7 * 4
    assert {row["product"] for row in cpu} == {"forward", "dX", "dW", "step"}


def test_blocks_must_divide(fedmpi):
    assert "take a multiple of it" in fedmpi(1, "bench", "sparse", "--n", 36, "--block", 8, code=2)
