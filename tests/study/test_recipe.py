"""Recipes: which runs they mean, and our own ones."""

import pytest
from studies import RECIPE, read

from fedmpi.commands.experiment import own_recipes
from fedmpi.commands.runs import toml
from fedmpi.study.recipe import Study, study
from fedmpi.study.recipe_check import check_recipe
from fedmpi.study.verdict import judge


@pytest.mark.parametrize("name", own_recipes())
def test_our_recipes_are_planned_at_all_sizes(fedmpi, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = toml(own_recipes()[name], name)
    check_recipe(recipe, name)
    least_seeds = {"smoke": 2, "small": 3, "paper": 3}
    assert recipe["size"].keys() == least_seeds.keys()
    for size, table in recipe["size"].items():
        text = fedmpi(1, "experiment", name, "--size", size, "--dry-run")
        num_missing = text.count(" missing ")
        assert f"0 of {num_missing:,} runs done" in text
        assert len(table["seeds"]) >= least_seeds[size]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", own_recipes())
def test_the_small_and_paper_sizes_have_the_arms_and_levels_of_their_claims(name):
    recipe = toml(own_recipes()[name], name)
    for size in ("small", "paper"):
        table = recipe["size"][size]
        arms = table.get("arms") or list(recipe["arms"])
        grid = {factor: list(map(str, levels)) for factor, levels in table["grid"].items()}
        plan = Study(name, size, recipe, table["seeds"], arms, grid, {}, {})
        for claim in recipe["claim"]:
            verdicts = [judged["verdict"] for judged in judge(claim, plan, lambda *place: 0.0)]
            assert verdicts and "not run" not in verdicts, claim["says"]


def test_recipes_are_listed(fedmpi):
    text = fedmpi(1, "experiment")
    assert all(f"{name}  " in text for name in ("E1", "E8"))
    assert "an hour on 2 cores" in text


def plan_of(text, tmp_path):
    """The Study of a recipe at size smoke, its options unchecked."""
    return study(
        read(text, tmp_path), "r", "smoke",
        changes=lambda options: {},
        typed=lambda options, where: options)


def test_later_tables_win_and_words_are_filled(tmp_path):
    levels = """\
[factors.S."0.5"]
lr = 0.5
rest = "{S}5"
model = "2nn:hidden=4"
[factors.S.0]
rest = "0"
"""
    text = RECIPE.replace("[[claim]]", f"{levels}[[claim]]", 1)
    plan = plan_of(text.replace("sparsity={S}", "sparsity={rest}"), tmp_path)
    options = plan.options[plan.runs["cosine", ("0.5",), 1]]
    assert options["lr"] == 0.5
    assert options["pruner"] == "static:sparsity=0.55"
    assert options["model"] == "2nn:hidden=4"
    assert "lr" not in plan.options[plan.runs["cosine", ("0",), 1]]


def test_arms_of_equal_options_share_a_run(tmp_path):
    plan = plan_of(RECIPE, tmp_path)
    assert plan.runs["size", ("0",), 0] == "size_S-0_seed-0"
    assert plan.runs["size", ("0.5",), 0] == "size_S-0_seed-0"
    assert len(plan.options) == 6
