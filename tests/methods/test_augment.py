"""Flips and crops: what they do to an image, the same draws alone and side by side, on images only."""

import re

import contracts
import numpy as np
import pytest
import torch

from fedmpi import catalog
from fedmpi.core.parts import Facts
from fedmpi.plugins.spec import make
from fedmpi.commands.run_options import separated
from fedmpi.compute.augment import joined
from fedmpi.core.errors import UserError
from fedmpi.server import loop
from fedmpi.store import read_run, verify


def made(spec):
    return make(catalog.AUGMENTATIONS, spec)


def images(n=5, shape=(3, 6, 4), seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def test_a_flip_mirrors_left_and_right_by_chance():
    part, given = made("flip"), images(200)
    drawn = part.draw(np.random.default_rng(0), 200, given.shape[1:])
    assert drawn.shape == (200, part.width) and 70 < int(drawn.sum()) < 130
    for image, chance, changed in zip(given, drawn, part.apply(given, drawn)):
        assert torch.equal(changed, image.flip(2) if int(chance) else image)


def test_a_crop_is_a_window_of_the_image_with_a_border():
    part, given = made("crop:pad=2"), images(100)
    drawn = part.draw(np.random.default_rng(0), 100, given.shape[1:])
    assert drawn.min() == 0 and drawn.max() == 4
    padded = torch.nn.functional.pad(given, (2, 2, 2, 2))
    for image, (down, right), changed in zip(padded, drawn.tolist(), part.apply(given, drawn)):
        assert torch.equal(changed, image[:, down: down + 6, right: right + 4])


def test_several_are_one_after_the_other():
    flip, crop, given = made("flip"), made("crop:pad=1"), images()
    both = joined([flip, crop])
    drawn = both.draw(np.random.default_rng(1), 5, given.shape[1:])
    assert drawn.shape == (5, both.width) == (5, 3)
    assert torch.equal(both.apply(given, drawn), crop.apply(flip.apply(given, drawn[:, :1]), drawn[:, 1:]))
    assert joined([]) is None


@pytest.mark.parametrize("text, parts", [
    ("flip", ["flip"]), ("flip,crop", ["flip", "crop"]), ("crop:pad=4,flip:p=0.2", ["crop:pad=4", "flip:p=0.2"]),
    ("own.module:warp:a=1,b=2,flip", ["own.module:warp:a=1,b=2", "flip"])])
def test_a_comma_separates_parts_and_their_options(text, parts):
    assert list(separated(None, None, (text,))) == parts


@pytest.mark.parametrize("spec, message", [("flip:p=0", "p must be in"), ("crop:pad=0", "pad must be at least")])
def test_impossible_options_are_refused(spec, message):
    with pytest.raises(UserError, match=message):
        made(spec)


def test_teams_draw_what_single_clients_draw():
    options = {"clients": 5, "partition": "quantity", "augment": ["flip", "crop:pad=1"], "lr": 0.05}
    (run, state), (other, twin) = (contracts.assembled(**options, together=G) for G in (1, 3))
    plain = contracts.run_rounds(*contracts.assembled(**options | {"augment": []}), 1)[0][0]["x"]
    one, side = loop.evaluated_round(run, state, 1)[0]["x"], loop.evaluated_round(other, twin, 1)[0]["x"]
    torch.testing.assert_close(one, side, rtol=1e-3, atol=2e-5)
    assert float((one - plain).abs().max()) > 1e-3


SMALL = ("--clients", 3, "--rounds", 2, "--strategy", "fedavg", "--local-epochs", 1)


def test_the_same_bits_on_any_ranks(fedmpi, tmp_path):
    for ranks in (1, 3):
        fedmpi(ranks, "train", *SMALL, "--dataset", "synthetic:samples=60,size=6", "--augment", "flip,crop:pad=1",
               "--out", tmp_path / f"{ranks}.h5")
    assert verify(tmp_path / "1.h5", tmp_path / "3.h5") == []
    assert read_run(tmp_path / "1.h5").attrs["options"]["augment"] == ["flip", "crop:pad=1"]


def test_what_is_no_image_is_refused():
    rule = make(catalog.AUGMENTATIONS, "flip").refuses
    assert list(rule(Facts(None, shape=(1, 4, 4)))) == []
    line, = rule(Facts(None, shape=(16,)))
    assert re.match(r"it changes images .*, and the samples are of shape \(16,\)", line)
    line, = rule(Facts(None, shape=(1, 4, 4), ids=True))
    assert "these samples are whole numbers" in line
