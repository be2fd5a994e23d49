"""Mistakes in recipes are refused in a line each."""

import pytest
from studies import RECIPE, read

from fedmpi.core.errors import UserError


@pytest.mark.parametrize("old, new, message", [
    ('title = "Two arms"', "", "title is missing"),
    ("above = 0", "above = 0\nbelow = 0", "either above or below"),
    ("above = 0", "above = 0\nreach = -0.1", "wrong side"),
    ('"up_mb"', '"uploads"', "unknown measure uploads"),
    ('"up_mb"', '"mb_to"', "unknown measure mb_to"),
    ('{ arm = "cosine" }', '{ arm = "sine" }', "there is no arm sine"),
    ('{ arm = "cosine" }', '{ arm = "cosine", T = 1 }', "T is no factor"),
    ("rounds = 4", "round = 4", "unknown round"),
    ("rounds = 4", "seed = 4", "unknown seed"),
    ("seeds = [0, 1]", "seeds = []", "seeds must be"),
    ("seeds = [0, 1]", "seeds = [1, 1]", "seeds must differ"),
    ('x = "S"', "", "needs x"),
    ('x = "S"', 'x = "T"', "T is no factor"),
    ('x = "S"', 'x = "S"\nlines = "T"', "T is no factor"),
    ('kind = "curves"', 'kind = "curves"\nmeasure = "up_mb"', "measure: only kind = \"factor\" has that"),
    ('{ arm = "cosine" }', '{ arm = "cosine", S = "0" }', "must name the same factors"),
    ("above = 0", 'above = 0\nwhere = { arm = "cosine" }', "arm is no factor"),
    ('[{ arm = "cosine" }]', '["cosine"]', "must be a table, got 'cosine'"),
    ('against = "size"', 'pairs = [["size"]]', "pairs must be"),
    ('[fixed]', 'arms.third = "dense"\n[fixed]', r"\[arms.third\] must be a table"),
    ("[fixed]", 'factors.S = 1\n[fixed]', "must be a table"),
    ("[[claim]]", '[factors]\nS.0 = "dense"\n[[claim]]', r"\[factors.S.0\] must be a table"),
    ('against = "size"', 'against = "none"', "there is no arm none")])
def test_a_mistake_in_a_recipe_is_refused(tmp_path, old, new, message):
    assert old in RECIPE
    with pytest.raises(UserError, match=message):
        read(RECIPE.replace(old, new, 1), tmp_path)
