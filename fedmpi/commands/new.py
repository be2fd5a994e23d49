"""``fedmpi new``: a working method of any kind, with its test, to be edited.

The texts are the files of ``skeletons`` beside this one: real methods, with NAME in place of the
name.
"""

import importlib.util
import keyword
import os
import pathlib
import re

import click

from fedmpi import catalog
from fedmpi.commands.say import write_out
from fedmpi.core.errors import UserError
from fedmpi.core.nearest import hint

SKELETONS = pathlib.Path(__file__).with_name("skeletons")
# Further options needed to run a part of a kind: alone it would have no effect, or fit no network.
BESIDE = {
    "weighting": "--contribution cosine",
    "timing": "--devices drawn --cohort 4",
    "sampler": "--cohort 4",
    "dataset": "--model 2nn",
}


def kinds(context, parameter, typed):
    """Completes KIND."""
    return [kind for kind in catalog.KINDS if kind.startswith(typed)]


@click.command("new", short_help="Write a method that works, and its test, to be edited.")
@click.argument("kind", shell_complete=kinds)
@click.argument("name")
@click.option(
    "--stateful", is_flag=True,
    help="A strategy whose clients remember, and send more than an update.")
@click.option(
    "--out", type=click.Path(file_okay=False), default=".", show_default=True,
    help="Folder to write to.")
def new(kind, name, stateful, out):
    """Write a method of a KIND as NAME.py, and its test: both work, and are to be edited.

    \b
    fedmpi new codec halves                  # halves.py and test_halves.py
    fedmpi new strategy drift --stateful     # clients with a state of their own
    pytest test_halves.py              # the laws of codecs, and one exact number
    fedmpi train --codec halves:halves       # played as it is
    """
    check_kind(kind, stateful)
    check_name(name)
    skeleton = f"stateful_{kind}" if stateful else kind
    texts = {}
    for prefix in ("", "test_"):
        text = filled(f"{prefix}{skeleton}.py", name)
        texts[f"{prefix}{name}.py"] = text
    folder = pathlib.Path(out)
    # Before anything is written.
    check_room(folder, name, texts)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        path = folder / file
        path.write_text(text, encoding="utf-8")
    write_out(way_on(kind, name, folder))


def filled(file, name):
    """The text of a skeleton for a name."""
    skeleton = SKELETONS / file
    text = skeleton.read_text(encoding="utf-8")
    return text.replace("NAME", name)


def check_kind(kind, stateful):
    """UserError unless there is a skeleton of the kind."""
    if kind not in catalog.KINDS:
        perhaps = hint(kind, catalog.KINDS) or "."
        listed = ", ".join(catalog.KINDS)
        raise UserError(f"unknown kind {kind!r}{perhaps} Known: {listed}")
    if stateful and kind != "strategy":
        raise UserError(
            f"--stateful is for a strategy, got {kind}: what clients keep belongs to strategies")


def check_name(name):
    """UserError unless a module and its function can be called so."""
    # Python takes letters of all scripts; files and shells may not.
    if not name.isascii() or not _is_python_name(name):
        raise UserError(
            f"expected a name for a Python module and function, got {name!r}; {meant(name)}")
    if name.startswith("test_"):
        raise UserError(
            f"expected a name for a method, got {name!r}; test_ begins the name of its test")


def _is_python_name(name):
    return name.isidentifier() and not keyword.iskeyword(name)


def meant(name):
    """The way out for a name that Python cannot take."""
    underscored = re.sub("[^0-9A-Za-z]", "_", name)
    # At the ends they would mark it as private.
    plain = underscored.strip("_")
    if _is_python_name(plain):
        return f"{plain} would do"
    return "take letters, digits and _"


def check_room(folder, name, files):
    """UserError if a file exists already, or another module has the name."""
    for file in files:
        path = folder / file
        if path.exists():
            raise UserError(
                f"{path} is there already; take another name, or another folder with --out")
    # Without importing it.
    taken = importlib.util.find_spec(name)
    if taken is not None:
        where = taken.origin or "Python itself"
        raise UserError(
            f"the module {name} is there already ({where}), and would be taken for yours; take "
            "another name")


def way_on(kind, name, folder):
    """A text about the written files, and the next steps."""
    path = folder / f"{name}.py"
    test = folder / f"test_{name}.py"
    beside = f"{BESIDE[kind]} " if kind in BESIDE else ""
    # Commands find a module of the folder that they are started in, and no other.
    there = ""
    if os.path.relpath(folder) != os.curdir:
        there = f"cd {folder} && "
    # Names of the catalogue are written as on the command line.
    listed = name.replace("_", "-")
    lines = [
        f"{path}: a {kind} that works, to be edited",
        f"{test}: the laws of its kind, and one exact case",
        "",
        f"  pytest {test}",
        f"  {there}fedmpi train {beside}--{kind} {name}:{name}",
        f"  {there}fedmpi list {kind} {name}:{name}",
        "",
        f"What each function is given and gives: fedmpi/core/parts.py, {type_of(kind)}.",
        "Into the catalogue:",
        f"  {name}.py goes to {home(kind)}, test_{name}.py to tests/methods/",
        f"  {name}:{name} in both becomes {listed}",
        f"  {table_of(kind)} in fedmpi/catalog.py gets the line",
        f'    "{listed}": "{module_of(kind)}.{name}:{name}",',
        f"  pytest -o addopts= -q tests -k {listed}   # its contract, from the root of the source",
    ]
    return "\n".join(lines)


def module_of(kind):
    """The package of a kind's methods: the most frequent one in its table."""
    packages = []
    for target in catalog.KINDS[kind].values():
        module, _, _ = target.partition(":")
        package, _, _ = module.rpartition(".")
        packages.append(package)
    return max(packages, key=packages.count)


def table_of(kind):
    """The name of a kind's table in the catalogue."""
    table = catalog.KINDS[kind]
    return next(name for name, value in vars(catalog).items() if value is table)


def home(kind):
    """The folder of a kind's methods, as a path from the root of the source."""
    package = module_of(kind)
    path = package.replace(".", "/")
    return f"{path}/"


def type_of(kind):
    """The name of a kind's type in ``fedmpi.core.parts``."""
    names = {
        "task": "Objective",
        "augment": "Augmentation",
        "model": "Model",
        "dataset": "Dataset",
    }
    return names.get(kind, kind.capitalize())
