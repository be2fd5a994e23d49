"""What clients keep: theirs on any rank, zero where a weight is new, unbilled, in memory or in files."""

import os

import contracts
import pytest
import torch

from fedmpi.core.layout import Layout, Slot
from fedmpi.core.parts import Field
from fedmpi.server import client_states, loop, record
from fedmpi.server.run_state import loaded_state
from fedmpi.server.exchange import state_of_client
from fedmpi.store import RunFile

LAYOUT = Layout((Slot("w", (6,), 0, 6),), (Slot("b", (2,), 16, 2),), (), 16, 32, 32)


def mask_of(*positions):
    mask = torch.zeros(16, dtype=torch.bool)
    mask[list(positions)] = True
    return mask


def recalled(found, mask, grown):
    return client_states.recalled(found, LAYOUT, mask, LAYOUT.support(mask), grown, set())["c"].tolist()


def test_under_another_mask_a_state_is_zero_where_a_weight_is_new():
    found = client_states.kept(3, mask_of(0, 2, 5), {"c": torch.tensor([1.0, 2, 3, 8, 9])}, None, 0)
    assert recalled(found, mask_of(0, 2, 5), torch.zeros(16, dtype=torch.int32)) == [1, 2, 3, 8, 9]
    assert recalled(found, mask_of(2, 4), torch.zeros(16, dtype=torch.int32)) == [2, 0, 8, 9]


def test_a_weight_that_was_pruned_and_has_grown_again_starts_from_zero():
    first, second = mask_of(0, 2), mask_of(0, 3)
    found = client_states.kept(3, first, {"c": torch.tensor([1.0, 2, 8, 9])}, None, 0)
    grown = client_states.grown(torch.zeros(16, dtype=torch.int32), second, first, 4)
    grown = client_states.grown(grown, first, second, 5)
    assert recalled(found, first, grown) == [1, 0, 8, 9]


def test_columns_of_a_checkpoint_hold_what_was_kept():
    states = {7: client_states.kept(2, mask_of(1), {"c": torch.tensor([1.0, 8, 9])}, None, 7),
              3: client_states.kept(5, mask_of(1, 2), {"c": torch.tensor([1.0, 2, 8, 9]), "p": torch.eye(2)}, None, 3)}
    back = client_states.from_dict(client_states.as_dict(states))
    assert sorted(back) == [3, 7] and back[7].t == 2
    for client in back:
        for name, tensor in states[client].values.items():
            assert torch.equal(back[client].values[name], tensor)


def test_what_is_too_much_for_memory_is_known_before():
    fields = {"c": Field(), "p": Field(on=(4, 5))}
    assert not client_states.spills(fields, LAYOUT, 1000)
    assert client_states.spills(fields, LAYOUT, 2_000_000)


def scaffolds(**options):
    usual = {"strategy": "scaffold", "pruner": "set:every=2,sparsity=0.5", "clients": 5, "cohort": 3,
             "weighting": "uniform"}
    return contracts.assembled(**usual | options)


def resuming(**options):
    """A run whose clients keep an optimiser's state, a number of steps among it, and a residual."""
    return scaffolds(**{"strategy": "diloco", "optimiser": "adamw", "codec": "topk:share=0.1,chunk=64"} | options)


def played(store_path, rounds, first=1, state=None, assembled=None):
    """The state after some rounds whose checkpoints lie beside ``store_path``."""
    run, start = (assembled or scaffolds)()
    if state is None:
        state = start
        columns = record.columns(run)
        store = RunFile.create(store_path, {"options": {}}, *columns, {}, (torch.zeros(6, dtype=torch.int64).numpy(),
                                                                         torch.zeros(0, dtype=torch.int64).numpy()))
    else:
        store = RunFile(store_path)
    return loop.simulate(run, state, store, first, rounds, save_every=1), store


@pytest.mark.parametrize("assembled", [scaffolds, resuming])
def test_files_hold_the_same_bits_as_memory_and_a_killed_run_goes_on(tmp_path, monkeypatch, assembled):
    expected, _ = played(tmp_path / "memory.h5", 6, assembled=assembled)
    monkeypatch.setattr(client_states, "IN_MEMORY", 0)
    state, store = played(tmp_path / "files.h5", 4, assembled=assembled)
    assert all(found.values is None for found in state["clients"].values())
    # Killed here: what a later round has left is swept away.
    store.shelf.write(0, 99, {"c": torch.zeros(1).numpy()})
    loaded, done = store.load()
    state, store = played(tmp_path / "files.h5", 6, done + 1, loaded_state(loaded), assembled)
    assert torch.equal(state["x"], expected["x"]) and not os.path.exists(store.shelf.path_of(0, 99))
    run, _ = assembled()
    for client in expected["clients"]:
        before = state_of_client(run, expected, client, expected["mask"])
        after = state_of_client(run._replace(shelf=store.shelf), state, client, state["mask"])
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_files_that_no_checkpoint_names_go(tmp_path, monkeypatch):
    monkeypatch.setattr(client_states, "IN_MEMORY", 0)
    state, store = played(tmp_path / "files.h5", 9)
    assert len(os.listdir(store.shelf.folder)) <= 5 + 3 * 2          # one a client, and those of two rounds before


def test_scaffold_sends_twice_what_fedavg_sends_and_bills_no_state():
    rows = {}
    for name in ("fedavg", "scaffold"):
        run, state = contracts.assembled(strategy=name, pruner="static:sparsity=0.5", model="2nn:hidden=64")
        rows[name] = contracts.run_rounds(run, state, 3)[1]
        kept = int(state["mask"].sum()) + len(run.layout.dense_positions)
    for plain, twice in zip(rows["fedavg"], rows["scaffold"]):
        for way in ("up_bytes", "down_bytes"):
            # A name and a shape more in each of three messages.
            assert 0 <= twice[way] - plain[way] - 3 * 4 * kept <= 3 * 128


def test_a_client_that_takes_no_part_keeps_its_control():
    run, state = scaffolds()
    states, _ = contracts.run_rounds(run, state, 4)
    for before, after in zip(states, states[1:]):
        absent = [client for client in before["clients"] if before["clients"][client] is after["clients"][client]]
        assert len(absent) >= len(before["clients"]) - 3


def test_personal_tensors_stay_with_clients_and_do_not_travel():
    run, state = contracts.assembled(strategy="fedper", pruner="dense", clients=3)
    plain, twin = contracts.assembled(strategy="fedavg", pruner="dense", clients=3)
    states, rows = contracts.run_rounds(run, state, 2)
    own = run.layout.personal_positions
    assert len(own) and torch.equal(states[-1]["x"][own], state["x"][own]) and state["x"][own].any()
    heads = [state_of_client(run, states[-1], client, states[-1]["mask"])["_personal"] for client in range(3)]
    assert not torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], state["x"][own])
    fewer = contracts.run_rounds(plain, twin, 2)[1][0]["up_bytes"] - rows[0]["up_bytes"]
    assert fewer == pytest.approx(3 * 4 * len(own), abs=100)


def test_without_a_head_fedper_is_fedavg_to_the_bit():
    ends = []
    for strategy in ("fedper:head=0", "fedavg"):
        run, state = contracts.assembled(strategy=strategy)
        ends.append(contracts.run_rounds(run, state, 2)[0][-1]["x"])
    assert torch.equal(*ends)
