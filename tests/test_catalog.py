"""The catalogue: every line resolves, reads its options as Python does, and mistakes are told with a hint."""

import importlib
import inspect
import pathlib
import re
import shlex
import sys

import pytest

from fedmpi import catalog
from fedmpi.catalog import KINDS, PRUNERS, STRATEGIES
from fedmpi.commands.parts import WIRE, example, in_full
from fedmpi.core.errors import UserError
from fedmpi.plugins.entry import entry
from fedmpi.plugins.spec import choices, load, make, parse, split

ENTRIES = [(kind, name) for kind, table in KINDS.items() for name in table]


@pytest.mark.parametrize("kind, name", ENTRIES)
def test_every_entry_is_what_its_source_says(kind, name):
    found = entry(KINDS[kind], name)
    function = load(KINDS[kind], name)
    real = inspect.signature(function)
    assert found.line and found.line == inspect.getdoc(function).partition("\n")[0]
    assert found.text and found.text == inspect.getdoc(importlib.import_module(found.target.partition(":")[0]))
    assert [(p.name, p.default, p.annotation) for p in found.signature.parameters.values()] == \
        [(p.name, p.default, p.annotation) for p in real.parameters.values()]


def test_the_page_about_methods_says_of_each_strategy_what_is_kept_and_sent():
    folder = pathlib.Path(catalog.__file__).parent
    page = (folder / "docs" / "methods.md").read_text(encoding="utf-8")
    rows = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 6:
            rows |= {spec: cells[2:4] for spec in re.findall("`([a-z-]+(?::[a-z=0-9]+)?)`", cells[1])}
    specs = {*catalog.STRATEGIES, "diloco:fragments=2"}
    assert specs <= rows.keys()
    for name in specs:
        part = make(catalog.STRATEGIES, name)
        keeps, travels = rows[name]
        resumes = getattr(part.local, "resumes", False)
        assert bool(keeps) == bool(part.keeps or part.personal or resumes), name
        others = part.sends or part.answers or part.personal or part.steps or part.travels
        assert bool(travels) == bool(others), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_lines_of_a_kind_tell_its_parts_apart(kind):
    lines = [entry(KINDS[kind], name).line for name in KINDS[kind]]
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize("kind, name", ENTRIES)
def test_every_option_has_a_type_and_survives_the_command_line(kind, name):
    options = {p.name: p for p in entry(KINDS[kind], name).signature.parameters.values() if p.default is not p.empty}
    for each in options.values():
        known = choices(each)
        simple = each.annotation in (str, int, float, bool) and type(each.default) is each.annotation
        assert each.default in known if known else simple
    texts = {key: p.default for key, p in options.items() if not (p.annotation is str and not p.default)}
    spec = name + ":" * bool(texts) + ",".join(f"{key}={value}" for key, value in texts.items())
    assert parse(KINDS[kind], spec) == (KINDS[kind][name], texts)


@pytest.mark.parametrize("kind, name", ENTRIES)
def test_every_entry_names_its_paper_and_what_it_sends(kind, name):
    """Where it has no paper it says so, and why; a kind whose parts send nothing of their own says that once."""
    found = entry(KINDS[kind], name)
    assert found.fields.get("Paper") and (kind in WIRE or found.fields.get("Up") and found.fields.get("Down"))
    assert not re.search("Paper:|Up:|Down:|Example:|Wire:", found.text), "fields belong in the factory's docstring"
    told = in_full(kind, name, found)
    assert all(f"{label}:\n  " in told for label in ("options", "paper", "example"))
    assert "on the wire:\n  " in told or "from clients:\n  " in told and "to clients:\n  " in told
    for parameter in found.signature.parameters.values():
        if parameter.default is not parameter.empty:
            assert f"{parameter.name}={as_typed(parameter.default)}" in told


def as_typed(value):
    """A value as it is typed on a command line."""
    return str(value).lower() if isinstance(value, bool) else value


ELSEWHERE = ("trace", "torchvision", "natural")             # their examples want files of the user's own
EXAMPLES = [(kind, name) for kind, name in ENTRIES if kind != "dataset" and name not in ELSEWHERE]


@pytest.mark.parametrize("kind, name", EXAMPLES)
def test_every_example_plays(fedmpi, tmp_path, kind, name):
    """A round of few clients on few samples; data sets and files that are not here apart."""
    words = shlex.split(example(kind, name, entry(KINDS[kind], name)))
    assert words[:2] == ["fedmpi", "train"] and any(word.partition(":")[0] == name for word in words)
    small = {"--dataset": "synthetic:samples=200,size=8", "--model": "logistic", "--clients": 7, "--local-epochs": 1}
    if "--local-steps" in words:
        small.pop("--local-epochs")
    extra = [each for pair in small.items() if pair[0] not in words for each in pair]
    fedmpi(1, *words[1:], *extra, "--rounds", 1, "--out", tmp_path / "run.h5")


def test_a_part_of_the_users_is_listed_as_far_as_it_says(fedmpi, own_module):
    told = fedmpi(1, "list", "pruner", f"{own_module}:half")
    assert "Half of it." in told and "share=0.5   number" in told and "deep=false  true or false" in told
    assert "paper:" not in told and f"--pruner {own_module}:half:share=0.5" in told


@pytest.mark.parametrize("kind", ["strategy", "pruner", "contribution", "weighting", "codec", "partition", "noise",
                                  "features", "fault", "sampler", "timing", "task"])
def test_every_method_is_made_with_its_defaults(kind):
    assert all(make(KINDS[kind], name) is not None for name in KINDS[kind])


def test_the_usual_parts_of_every_strategy_exist():
    for name in STRATEGIES:
        strategy = make(STRATEGIES, name)
        make(PRUNERS, strategy.pruner)
        make(catalog.CONTRIBUTIONS, strategy.contribution)


@pytest.mark.parametrize("spec, parts", [
    ("rigl", ("rigl", "")), ("rigl:sparsity=0.5,every=2", ("rigl", "sparsity=0.5,every=2")),
    ("a.b:f", ("a.b:f", "")), ("a.b:f:x=1,y=c:d", ("a.b:f", "x=1,y=c:d")),
    ("hdf5:file=/data/a:b.h5", ("hdf5", "file=/data/a:b.h5"))])
def test_specs_are_split_at_the_right_colon(spec, parts):
    assert split(spec) == parts


@pytest.mark.parametrize("spec, message", [
    ("rigel", "did you mean rigl?"), ("Dense", "did you mean dense?"), ("qqq", "Known: dense, static"),
    ("rigl:sparsty=0.5", "did you mean sparsity?"), ("rigl:zzz=1", r"It takes \(sparsity=0\.\d+, distribution=erk"),
    ("dense:sparsity=1", "no options"),
    ("rigl:sparsity", r"no module 'rigl' .* Or an option of rigl\? rigl:option=value"),
    ("rigl:every=2,sparsity=0.5,every=3", "every is given twice"),
    ("rigl:every=2,sparsity", "expected option=value, got 'sparsity'"),
    ("rigl:sparsity=high", "sparsity must be a number, got 'high'"),
    ("rigl:every=2.5", "every must be a whole number, got '2.5'"),
    ("set:signed=maybe", "signed must be true or false, got 'maybe'")])
def test_mistakes_are_told_with_a_hint(spec, message):
    with pytest.raises(UserError, match=message):
        parse(PRUNERS, spec)


@pytest.mark.parametrize("spec, expected",
                         [("set:signed=false", False), ("set:signed=TRUE", True), ("set:signed=1", True),
                          ("set:signed=no", False)])
def test_truth_is_spelt_in_several_ways(spec, expected):
    assert parse(PRUNERS, spec)[1] == {"signed": expected}


def test_messages_end_their_sentences():
    for spec in ("qqq", "rigl:zzz=1"):
        with pytest.raises(UserError) as caught:
            parse(PRUNERS, spec)
        assert "' Known" not in str(caught.value) and "' It takes" not in str(caught.value)


@pytest.mark.parametrize("name, option, value", [
    (name, option, value)
    for option, value in (("sparsity", "1.5"), ("sparsity", "-0.1"), ("sparsity", "nan"), ("distribution", "erdos"),
                          ("init", "zeros"), ("every", "0"))
    for name in PRUNERS if name != "dense" and option in entry(PRUNERS, name).signature.parameters])
def test_impossible_pruning_is_refused_when_it_is_made(name, option, value):
    with pytest.raises(UserError, match=f"(?s)^{name}:{option}={value}: .*{option} must be"):
        make(PRUNERS, f"{name}:{option}={value}")


@pytest.mark.parametrize("kind, spec", [
    ("contribution", "loo:of=F1"), ("weighting", "relu:memory=2"), ("weighting", "softmax:temperature=0"),
    ("weighting", "thesis:gamma=-1"), ("weighting", "thesis:schedule=never"), ("weighting", "tanh:beta=0"),
    ("strategy", "thesis:server_momentum=1"), ("strategy", "fedprox:mu=-1"), ("strategy", "feddst:mu=-1"),
    ("strategy", "thesis:clip=-1"), ("strategy", "thesis:rho=2"), ("strategy", "thesis:server_lr=0"),
    ("pruner", "rigl:batches=0"), ("pruner", "feddst:after=-1"), ("pruner", "prunefl:half_life=0"),
    ("codec", "int8:block=0"), ("noise", "symmetric:rate=2"), ("partition", "dirichlet:beta=0")])
def test_other_impossible_options_are_refused_when_they_are_made(kind, spec):
    with pytest.raises(UserError, match=f"^{spec}: .* must be"):
        make(KINDS[kind], spec)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A user's module on the path."""
    (tmp_path / "mine_for_test.py").write_text(
        '"""My methods."""\n\nfrom fedmpi.methods.pruning.static import static\n\n\n'
        'def half(share: float = 0.5, name="x", *, deep: bool = False):\n'
        '    """Half of it."""\n    if share > 1:\n        raise ValueError(f"share must be <= 1, got {share}")\n'
        '    return share, name, deep\n\n\nclass Thing:\n    """A thing."""\n\n    def __init__(self, size: int = 3):\n'
        '        self.size = size\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "mine_for_test"
    sys.modules.pop("mine_for_test", None)


def called(spec):
    """What the factory of a spec returns, whatever that is."""
    target, options = parse(PRUNERS, spec)
    return load({}, target)(**options)


def test_any_function_of_the_users_serves(own_module):
    assert called(f"{own_module}:half") == (0.5, "x", False)
    assert called(f"{own_module}:half:share=0.25,deep=true,name=a:b") == (0.25, "a:b", True)
    assert called(f"{own_module}:Thing:size=7").size == 7
    assert entry(PRUNERS, f"{own_module}:half").line == "Half of it."


def test_the_users_module_is_not_imported_before_it_is_made(own_module):
    parse(PRUNERS, f"{own_module}:half:share=0.25")
    assert own_module not in sys.modules


@pytest.mark.parametrize("spec, message", [
    ("mine_for_test:quarter", "defines no function or class 'quarter'"),
    ("mine_for_test:half:shar=1", "did you mean share?"),
    ("mine_for_test:half:share=2", "share must be <= 1, got 2"),
    ("no_such_module_here:f", "no module 'no_such_module_here'"),
    ("no_such_package.module:f", "no module 'no_such_package.module'"), 
    ("math:sqrt", "cannot be called without arguments: missing a required argument: 'x'; an option ")])
def test_mistakes_about_own_functions_are_told(own_module, spec, message):
    with pytest.raises(UserError, match=message):
        make(PRUNERS, spec)


def test_every_method_file_is_in_the_catalogue():
    """A factory file that nobody can choose is dead: every public module of a method's folder has its line."""
    root = pathlib.Path(catalog.__file__).parent
    targets = {target.partition(":")[0] for table in KINDS.values() for target in table.values()}
    helpers = {f"fedmpi.methods.{name}" for name in (
        "strategies.server_memory", "strategies.without_weights", "strategies.fragments",
        "partition.deal", "noise.corrupt", "features.images", "fault.training",
        "weighting.earned", "contribution.game", "devices.fleet", "sampler.race", "timing.staleness",
        "timing.without_rounds", "schedules.progress", "pruning.pattern")}
    for folder in ("strategies", "optimisers", "schedules", "augment", "pruning", "contribution", "weighting",
                   "partition", "noise", "features", "fault", "devices", "sampler", "timing", "adapters"):
        modules = {f"fedmpi.methods.{folder}.{path.stem}" for path in (root / "methods" / folder).glob("*.py")
                   if path.stem != "__init__"}
        assert modules and modules - helpers <= targets
