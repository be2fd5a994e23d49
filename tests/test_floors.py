"""The direction of imports. Architecture that is not a test is a wish."""

import ast
import fnmatch
import pathlib
import re
import subprocess
import sys

import pytest
from conftest import environment

ROOT = pathlib.Path(__file__).parents[1] / "fedmpi"
# The house, lowest floor first: a module imports from its own folder and from those before it.
FLOORS = ("core", "store", "wire", "compute", "methods", "catalog", "plugins", "transport", "client", "server", "build",
          "laws", "read", "run", "cluster", "study", "bench", "commands", "cli", "__main__")
ROOT_FILES = {"__init__", "__main__", "catalog", "cli"}
SHARED = {("fault", "noise"), ("fault", "features"), ("features", "noise")}
OUTSIDE = {"mpi4py": {f"transport.{name}" for name in ("messages", "heartbeat", "probe", "mpi", "serve")},
           "click": {"cli"},                 # and commands.*
           "h5py": {"store.attrs", "store.checkpoint", "store.disk", "store.read", "store.relay", "store.scales",
                    "store.tables", "store.trial", "bench.start"}}
FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
         for path in sorted(ROOT.rglob("*.py"))}


def imports(module):
    """``(imported module, inside a function)`` of each import statement; ``fedmpi.x.name`` where that is a module."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    inner = {id(node) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.Lambda)) for node in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inner) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if whole.removeprefix("fedmpi.") in FILES else node.module), id(node) in inner


def own_imports(module):
    """The package's own modules that ``module`` imports anywhere, without the package itself (its version)."""
    return {name.removeprefix("fedmpi.") for name, _ in imports(module) if name.startswith("fedmpi.")}


def floor(module):
    return FLOORS.index(module.partition(".")[0])


@pytest.mark.parametrize("module", [m for m in FILES if m != "__init__"])
def test_imports_go_down(module):
    for other in own_imports(module):
        assert floor(other) <= floor(module), f"{module} imports {other}, of a floor above its own"


def test_methods_of_one_kind_know_no_other_kind_but_what_is_listed():
    """A method is one file: what it shares with another kind of method is said here."""
    across = {(module.split(".")[1], other.split(".")[1])
              for module in FILES if module.startswith("methods.")
              for other in own_imports(module) if other.startswith("methods.") and other.count(".") > 1}
    assert {pair for pair in across if pair[0] != pair[1]} == SHARED


def test_every_module_stands_on_a_floor():
    assert {module.partition(".")[0] for module in FILES} == {"__init__", *FLOORS}
    assert {module for module in FILES if "." not in module and FILES[module].name != "__init__.py"} | {
        "__init__"} == ROOT_FILES


def test_files_of_tests_have_names_of_their_own():
    """pytest imports them by their name alone, and refuses the second of two."""
    names = [path.name for path in pathlib.Path(__file__).parent.rglob("test_*.py") if "skeletons" not in path.parts]
    assert sorted(names) == sorted(set(names))


def test_there_are_no_cycles():
    edges = {module: own_imports(module) & FILES.keys() for module in FILES}
    while leaves := {module for module, others in edges.items() if not others}:
        edges = {module: others - leaves for module, others in edges.items() if module not in leaves}
    assert edges == {}


@pytest.mark.parametrize("library", OUTSIDE)
def test_some_libraries_are_imported_only_here(library):
    users = {module for module in FILES for name, _ in imports(module) if name.partition(".")[0] == library}
    assert {each for each in users if library != "click" or not each.startswith("commands.")} == OUTSIDE[library]


@pytest.mark.parametrize("library", ["torchvision", "sklearn", "matplotlib", "plotext", "safetensors", "pyarrow"])
def test_slow_libraries_are_imported_where_they_are_used(library):
    at_once = {module for module in FILES for name, inner in imports(module)
               if name.partition(".")[0] == library and not inner}
    assert at_once == set()


def test_only_the_command_line_prints():
    printing = {module for module, path in FILES.items()
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"}
    assert printing <= {"cli"}


def test_pytest_leaves_out_no_folder_of_tests(request):
    """By itself it does not look into folders that are called build, among others."""
    left_out = request.config.getini("norecursedirs")
    folders = [path.name for path in pathlib.Path(__file__).parent.rglob("*") if path.is_dir()]
    assert [name for name in folders if any(fnmatch.fnmatch(name, pattern) for pattern in left_out)] == []


def test_lines_have_at_most_120_characters():
    longer = [f"{path}:{number}" for folder in (ROOT, pathlib.Path(__file__).parent)
              for path in sorted(folder.rglob("*.py"))
              for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if len(line) > 120]
    assert longer == []


def test_the_package_alone_imports_nothing():
    assert [name for name, inner in imports("__init__") if not inner] == []


@pytest.mark.parametrize("start, absent", [
    ("fedmpi", "torch numpy mpi4py h5py click pandas"),
    ("fedmpi.cli", "torch mpi4py h5py numpy matplotlib pandas"),
    ("fedmpi.client.worker, fedmpi.build.worker", "h5py torchvision sklearn mpi4py click matplotlib pandas"),
    ("fedmpi.transport.mpi, fedmpi.transport.serve, fedmpi.run.launch", "torch numba h5py click pandas"),
    ("fedmpi.build.setup, fedmpi.transport.local", "torchvision sklearn mpi4py click matplotlib")])
def test_what_an_import_does_not_import(start, absent):
    code = f"import sys, {start}; print(*sorted(set({absent.split()}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout.split() == []


UNUSED = ("h5py", "torchvision", "sklearn", "scipy", "matplotlib", "plotext", "PIL", "fedmpi.store", "fedmpi.read",
          "fedmpi.server.loop", "fedmpi.build.setup", "fedmpi.cluster", "torch._dynamo", "torch._inductor", "triton")
# The compiler of torch, more than a second of processor time.
UNUSED_BY_RANK_0 = ("torchvision", "sklearn", "matplotlib", "pandas", "torch._dynamo", "torch._inductor", "sympy")
CODE = """
import os, sys
from fedmpi.cli import main
try:
    main()
finally:
    rank = os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK"))
    os.write(2, f"\\nmodules of rank {rank}: {' '.join(sys.modules)}\\n".encode())
"""


@pytest.mark.parametrize("options", [
    ("--client-test", 0.5), ("--strategy", "prunefl"), ("--contribution", "gtg-shapley", "--codec", "int8")])
def test_ranks_that_have_trained_have_imported_nothing_that_they_do_not_use(command, tmp_path, options):
    argv = command(2, "train", "--dataset", "synthetic:samples=60", "--model", "logistic", "--clients", 2,
                   "--rounds", 1, "--local-epochs", 1, "--out", tmp_path / "run.h5", *options)
    at = argv.index("-m")
    done = subprocess.run([*argv[:at], "-c", CODE, *argv[at + 2:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=240, env=environment())
    modules = {rank: names.split() for rank, names in re.findall("modules of rank (.): (.*)", done.stdout)}
    assert done.returncode == 0 and modules.keys() == {"0", "1"}, done.stdout
    assert "torch" in modules["1"] and set(UNUSED) & set(modules["1"]) == set()
    assert "torch" in modules["0"] and set(UNUSED_BY_RANK_0) & set(modules["0"]) == set()
