"""Entries of the vector that belong to a unit, scores of units and the choice of some: by hand."""

import pytest
import torch

from fedmpi.core.errors import UserError
from fedmpi.core.layout import arranged
from fedmpi.core.units import (Axis, Structure, by_layer, choose, flat, entries_of, l1, norm_scale,
                               small_layout)


def by_hand():
    """Two filters with a norm, of two positions each, and a linear layer 4 -> 3 that reads them."""
    weights = [("conv.weight", (2, 1, 3)), ("fc.weight", (3, 4))]
    others = [("conv.bias", (2,)), ("norm.weight", (2,)), ("fc.bias", (3,))]
    layout = arranged(weights, others, [("norm.running_mean", (2,))])
    conv, fc = layout.weights
    bias, scale, _ = layout.others
    units = torch.tensor([0, 1])
    axes = (Axis(conv, 0, units, "weight"),
            Axis(bias, 0, units, "bias"),
            Axis(scale, 0, units, "norm"),
            Axis(layout.buffers[0], 0, units, "other"),
            Axis(fc, 1, torch.tensor([0, 0, 1, 1]), "input"))
    return Structure(layout, {"conv": 2}, axes, {"fc": "they are the model's outputs"})


def entries(structure, kept):
    """The kept entries of each tensor, as lists of its flat positions."""
    found = entries_of(structure, kept)
    return {slot.name: torch.nonzero(found[slot.span]).flatten().tolist()
            for slot in structure.layout.slots}


def test_a_filter_is_its_rows_its_norm_and_the_columns_that_read_it():
    assert entries(by_hand(), torch.tensor([False, True])) == {
        "conv.weight": [3, 4, 5], "fc.weight": [2, 3, 6, 7, 10, 11], "conv.bias": [1],
        "norm.weight": [1], "fc.bias": [0, 1, 2], "norm.running_mean": [1]}


def test_all_units_hold_all_entries_but_padding():
    structure = by_hand()
    assert torch.equal(entries_of(structure, torch.ones(2, dtype=torch.bool)), structure.layout.real)


def test_the_small_layout_has_the_same_tensors_in_the_same_order():
    layout = small_layout(by_hand(), torch.tensor([False, True]))
    assert [(slot.name, slot.shape) for slot in layout.slots] == [
        ("conv.weight", (1, 1, 3)), ("fc.weight", (3, 2)), ("conv.bias", (1,)),
        ("norm.weight", (1,)), ("fc.bias", (3,)), ("norm.running_mean", (1,))]
    assert layout.num_values == int(entries_of(by_hand(), torch.tensor([False, True])).sum())


def test_what_stays_is_given_by_layer():
    structure = by_hand()
    assert flat(structure, {"conv": torch.tensor([True, False])}).tolist() == [True, False]
    assert flat(structure, {}).tolist() == [True, True]


@pytest.mark.parametrize("kept, message", [
    ({"fc": torch.ones(3, dtype=torch.bool)}, "units of 'fc' cannot be cut: they are the model's"),
    ({"conv": torch.ones(3, dtype=torch.bool)}, r"mask of conv must be bool \(2,\)"),
    ({"conv": torch.ones(2)}, "must be bool"),
    ({"conv": torch.zeros(2, dtype=torch.bool)}, "keeps none of its 2 units: keep one")])
def test_masks_that_do_not_fit_are_refused(kept, message):
    with pytest.raises(ValueError, match=message):
        flat(by_hand(), kept)


def test_scores_by_hand():
    structure = by_hand()
    x = torch.full((structure.layout.P,), 100.0)
    conv, (_, scale, _) = structure.layout.weights[0], structure.layout.others
    x[conv.span] = torch.tensor([1.0, -2.0, 3.0, 0.5, 0.0, -0.5])
    x[scale.span] = torch.tensor([-0.25, 0.125])
    assert l1(structure, x)["conv"].tolist() == [6, 1]
    assert norm_scale(structure, x)["conv"].tolist() == [0.25, 0.125]


def test_units_without_a_norm_have_no_score_by_it():
    structure = by_hand()
    bare = structure._replace(axes=tuple(axis for axis in structure.axes if axis.role != "norm"))
    with pytest.raises(UserError, match="no batch norm scales the units of conv: score them by l1"):
        norm_scale(bare, torch.zeros(bare.layout.P))


@pytest.mark.parametrize("rate, kept", [
    (0, [1, 1, 1, 1, 1]), (0.19, [1, 1, 1, 1, 1]), (0.2, [1, 1, 1, 1, 0]), (0.6, [0, 1, 0, 1, 0]),
    (0.99, [0, 1, 0, 0, 0])])
def test_the_least_go_of_equal_ones_the_last_and_one_stays(rate, kept):
    chosen = choose({"a": torch.tensor([2.0, 9.0, 2.0, 3.0, 2.0])}, rate)["a"]
    assert chosen.int().tolist() == kept


def test_a_share_is_meant_as_it_is_written():
    assert int(choose({"a": torch.arange(100.0)}, 0.29)["a"].sum()) == 71


@pytest.mark.parametrize("rate", [-0.1, 1, float("nan")])
def test_all_units_cannot_go(rate):
    with pytest.raises(ValueError, match="share of units to cut must be in"):
        choose({"a": torch.ones(2)}, rate)


def test_parts_of_layers_are_in_their_order():
    structure = by_hand()._replace(layers={"b": 1, "a": 2})
    parts = by_layer(structure, torch.arange(3))
    assert {name: part.tolist() for name, part in parts.items()} == {"b": [0], "a": [1, 2]}
