"""Parts of the user's: any callable serves, what it returns is checked before work starts, its options are recorded."""

import json
import pathlib
import re
import sys

import h5py
import pytest
import torch

import contracts
from contracts import SMALL
from fedmpi import catalog
from fedmpi.plugins.entry import entry
from fedmpi.plugins.spec import parse
from fedmpi.build import settings
from fedmpi.run import plan
from fedmpi.commands.completion import answer
from fedmpi.cli import cli
from fedmpi.core.errors import DivergedError, UserError
from fedmpi.build.options import DEFAULTS
from fedmpi.store import read_run

TINY = ("--dataset", "synthetic:samples=60,size=4", "--model", "logistic", "--clients", 2, "--rounds", 2,
        "--local-epochs", 1, "--noise", "none")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """``own(name, text)`` writes a module of the user's into the working folder, which is on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


# ---------------------------------------------------------------- any importable package.module:factory

KINDS_OF_FACTORY = '''"""My methods."""
import functools
import dataclasses
import typing
from fedmpi.methods.pruning.static import static


def plain(share: float = 0.5, mode: typing.Literal["up", "down"] = "up", most: int | None = None):
    """A plain one."""
    return share, mode, most


class Base:
    def __init__(self, share: float = 0.25):
        self.share = share


class Heir(Base):
    """It inherits."""


@dataclasses.dataclass
class Data:
    """A dataclass."""

    share: float = 0.125


class Caller:
    """An instance that is called."""

    def __call__(self, share: float = 0.75):
        return share


def outer(function):
    @functools.wraps(function)
    def inner(*arguments, **options):
        return function(*arguments, **options)
    return inner


decorated = outer(plain)
bent = functools.partial(plain, share=0.7)
other = plain
instance = Caller()
small = lambda share=0.5: share
if True:
    def hidden(share: float = 0.5):
        return share
'''


@pytest.mark.parametrize("name, share", [
    ("plain", 0.5), ("Heir", 0.25), ("Data", 0.125), ("instance", 0.75), ("decorated", 0.5), ("bent", 0.7),
    ("other", 0.5), ("small", 0.5), ("hidden", 0.5)])
def test_whatever_can_be_called_tells_its_options(own, name, share):
    own("kinds_of_factory.py", KINDS_OF_FACTORY)
    own("package_of_it/__init__.py", f"from .inside import {name} as factory\nfrom .inside import *\n")
    own("package_of_it/inside.py", KINDS_OF_FACTORY)
    for spec in (f"kinds_of_factory:{name}", "package_of_it:factory", f"package_of_it:{name}"):
        found = entry(catalog.PRUNERS, spec)
        assert found.options["share"].default == share
        assert parse(catalog.PRUNERS, f"{spec}:share=0.0625")[1] == {"share": 0.0625}
        files = [pathlib.Path(path).name for path in found.sources]
        assert files[-1] == ("kinds_of_factory.py" if spec.startswith("kinds") else "inside.py")
        assert len(files) == 1 or spec == f"package_of_it:{name}"     # of a star, the package is one more


def test_a_name_that_a_package_re_exports_is_read_without_running_the_module(own):
    own("package_of_mine/__init__.py", "from .inside import factory\n")
    own("package_of_mine/inside.py", "def factory(share: float = 0.5):\n    '''It.'''\n")
    for spec in ("package_of_mine:factory", "package_of_mine.inside:factory"):
        assert entry(catalog.PRUNERS, spec).line == "It."
    assert not {"package_of_mine", "package_of_mine.inside"} & set(sys.modules)


def test_completion_imports_nothing(own):
    own("loud.py", "raise RuntimeError('imported')\nfactory = other\n")
    assert entry(catalog.PRUNERS, "loud:factory", importing=False).options == {}


@pytest.mark.parametrize("text, message", [
    ("plain:mode=dwon", "mode must be up or down, got 'dwon'; did you mean down?"),
    ("plain:most=few", "most must be a whole number or none, got 'few'"),
    ("needs", "needs cannot be called without arguments: missing a required argument: 'share'"),
    ("listed:sizes=3", "sizes is of type tuple, which cannot be written on a command line"),
    ("TABLE", "TABLE is of type dict, which cannot be called"),
    ("nothing", "defines no function or class 'nothing'")])
def test_what_an_option_cannot_be_is_told(own, text, message):
    own("kinds_of_factory.py", KINDS_OF_FACTORY
        + "def needs(share): pass\ndef listed(sizes=(1, 2)): pass\nTABLE = {}\n")
    with pytest.raises(UserError, match=re.escape(message)):
        parse(catalog.PRUNERS, f"kinds_of_factory:{text}")


def test_none_and_numbers_are_told_apart_from_texts(own):
    own("kinds_of_factory.py", KINDS_OF_FACTORY)
    taken = parse(catalog.PRUNERS, "kinds_of_factory:plain:most=3")[1]["most"]
    assert taken == 3 and type(taken) is int
    assert parse(catalog.PRUNERS, "kinds_of_factory:plain:most=none")[1] == {"most": None}


@pytest.mark.parametrize("name", ["random", "torch", "click"])
def test_a_file_with_the_name_of_a_library_is_named_by_its_path(own, name):
    path = own(f"{name}.py", "def net(shape, classes): pass\n")
    sys.path.remove(str(path.parent))
    sys.path.append(str(path.parent))                # as the command puts it
    with pytest.raises(UserError, match=f"not your file {re.escape(str(path))}, which has the same name"):
        entry(catalog.MODELS, f"{name}:net")


def test_the_working_folder_comes_last_under_python_m(own, fedmpi):
    own("random.py", "def net(shape, classes): pass\n")
    assert "strategy" in fedmpi(1, "list", COLUMNS="80")             # in a process of its own


def test_a_syntax_error_is_one_line_with_file_and_line(own, fedmpi):
    path = own("half_done.py", "x = 1\ndef net(shape, classes:\n")
    own("takes_it.py", "import half_done\nfactory = half_done.net\n")
    for spec in ("half_done:net", "takes_it:factory"):
        told = fedmpi(1, "train", "--model", spec, code=2)
        assert f"error: {path}:2: SyntaxError: " in told and len(told.strip().splitlines()) == 1


def test_an_exception_at_import_keeps_its_traceback_and_none_of_ours(own, fedmpi):
    path = own("breaks.py", "def deep():\n    return 1 / 0\n\n\nfactory = deep()\n")
    told = fedmpi(1, "train", "--pruner", "breaks:factory", code=1)
    assert f'File "{path}", line 2, in deep' in told and told.strip().endswith("ZeroDivisionError: division by zero")
    assert "fedmpi/plugins/factories.py" not in told and "importlib" not in told


def test_a_module_that_ends_the_program_is_told(own, fedmpi):
    own("script.py", "import sys\nfactory = None\nsys.exit(0)\n")
    assert "has ended the program by sys.exit" in fedmpi(1, "train", "--pruner", "script:factory", code=2)


# ---------------------------------------------------------------- contracts

MODELS = '''import math
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, shape, classes, how="", width=0):
        super().__init__()
        self.line, self.how = nn.Linear(math.prod(shape), classes - width), how

    def forward(self, x):
        y = self.line(x.flatten(1))
        if self.how == "pair" or self.how == "pair in training" and self.training:
            return y, x
        if self.how == "half":
            return y.half()
        if self.how == "squeezed":
            return y.squeeze()
        if self.how == "detached":
            return y.detach()
        if self.how == "infinite":
            return y / 0
        if self.how == "raises":
            raise RuntimeError("mine")
        return y


def pair(shape, classes): return Net(shape, classes, "pair")
def trains(shape, classes): return Net(shape, classes, "pair in training")
def half(shape, classes): return Net(shape, classes, "half")
def squeezed(shape, classes): return Net(shape, classes, "squeezed")
def detached(shape, classes): return Net(shape, classes, "detached")
def infinite(shape, classes): return Net(shape, classes, "infinite")
def raises(shape, classes): return Net(shape, classes, "raises")
def narrow(shape, classes): return Net(shape, classes, width=1)
def double(shape, classes): return Net(shape, classes).double()
def function(shape, classes): return lambda x: x
def nobody(shape, classes): Net(shape, classes)
def lazy(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.LazyLinear(classes))
def kind(shape, classes): return Net
'''


@pytest.mark.parametrize("name, message", [
    ("pair", " in training: expected a tensor (2, 10) of logits, float32, got a tuple"),
    ("trains", "got a tuple; let forward return the logits alone"),
    ("half", "got a tensor (2, 10) float16; leave dtypes to --precision"),
    ("squeezed", " in evaluation: expected a tensor (1, 10) of logits, float32, got a tensor (10,) float32"),
    ("detached", "expected outputs that depend on the parameters"),
    ("infinite", " in training: expected finite logits of finite samples"),
    ("narrow", "got a tensor (2, 9) float32"),
    ("double", "expected parameters of float32, got float64; convert the network with .float()"),
    ("function", "expected a torch.nn.Module from the factory, got a function"),
    ("nobody", "expected a torch.nn.Module from the factory, got None"),
    ("kind", "expected a torch.nn.Module from the factory, got a type")])
def test_a_model_that_cannot_work_is_one_line_before_work_starts(own, fedmpi, name, message):
    own("my_nets.py", MODELS)
    for dry in ((), ("--dry-run",)):
        told = fedmpi(1, "train", *TINY, "--model", f"my_nets:{name}", "--out", "run.h5", *dry, code=2)
        assert message in told and len(told.strip().splitlines()) == 1
    assert not pathlib.Path("run.h5").exists()


def test_a_lazy_network_trains_to_the_same_bits_on_any_number_of_ranks(own, fedmpi):
    own("my_nets.py", MODELS)
    for ranks in (1, 3):
        fedmpi(ranks, "train", *TINY, "--model", "my_nets:lazy", "--partition", "iid", "--batch-size", 7, "--strategy",
               "fedavg", "--pruner", "dense", "--out", f"{ranks}.h5", PYTHONPATH=".")
    one, three = (read_run(f"{ranks}.h5").rounds["weights_digest"] for ranks in (1, 3))
    assert (one == three).all()


def test_an_exception_of_a_forward_pass_keeps_its_traceback(own, fedmpi):
    path = own("my_nets.py", MODELS)
    told = fedmpi(1, "train", *TINY, "--model", "my_nets:raises", "--out", "run.h5", code=1)
    assert "--model my_nets:raises in training, on inputs of shape (2, 1, 4, 4), raised RuntimeError" in told
    assert f'File "{path}"' in told and "fedmpi/plugins/fit.py" not in told


def test_checking_a_network_leaves_it_and_the_generators_as_they_were():
    from fedmpi.methods.tasks.classification import classification
    from fedmpi.plugins.fit import check_outputs
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout())
    before, at = {key: value.clone() for key, value in net.state_dict().items()}, torch.random.get_rng_state()
    samples = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    check_outputs(net, samples, torch.tensor([0, 2]), 3, classification(), "--model mine:net")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), at) and net.training


METHODS = '''import numpy as np
import torch
from fedmpi.methods.timing.sync import sync
from fedmpi.methods.contribution.size import size
from fedmpi.methods.datasets.dataset import Dataset
from fedmpi.methods.datasets.synthetic import synthetic
from fedmpi.methods.devices.none import none as no_devices
from fedmpi.core.parts import Fault
from fedmpi.core.parts import Features
from fedmpi.core.mask import budgets, random_mask
from fedmpi.core.parts import Noise
from fedmpi.core.parts import *
from fedmpi.methods.tasks.classification import classification
from fedmpi.methods.pruning.static import static
from fedmpi.methods.sampler.uniform import uniform as drawn
from fedmpi.compute.sgd import train
from fedmpi.methods.strategies.fedavg import fedavg
from fedmpi.methods.weighting.uniform import uniform
from fedmpi.methods.codecs.float32 import float32


def strategy(fault: str = ""):
    part = fedavg()

    def init(layout):
        return {"sum": [1.0]} if fault == "list in state" else 3 if fault == "no state" else {"t": torch.zeros(1)}

    def merge(state, x, updates, weights):
        new = part.merge({}, x, updates, weights)[1]
        if fault == "pruned":
            new[: 32] += 1
        if fault == "double":
            new = new.double()
        if fault == "short":
            new = new[:-1]
        if fault == "writes":
            x += 1
        if fault == "forgets":
            state = {}
        return new if fault == "alone" else (state, new)

    def local(task):
        trained = train(part.local, task)
        if fault == "moves pruned":
            task.x[: task.layout.Q] += 1
        return None if fault == "no loss" else trained

    if fault == "raises":
        def merge(state, x, updates, weights):
            return 1 / 0
    if fault == "not callable":
        merge = 3
    replies = {"alone in reply": {}, "short reply": ({"a": torch.zeros(3)}, {}),
               "strange": ({"b": torch.zeros(80)}, {})}
    if fault in replies:
        part = part._replace(answers={"a": Field()}, reply=lambda task, trained: replies[fault])
    if fault == "no reply":
        part = part._replace(keeps={"a": Field()})
    if fault == "no field":
        part = part._replace(answers={"a": "support"}, reply=lambda task, trained: ({}, {}))
    if fault == "fold":
        part = part._replace(answers={"a": Field(fold="mean")}, reply=lambda task, trained: ({}, {}))
    if fault == "send":
        part = part._replace(sends={"a": Field()}, send=lambda state: [3])
    return part._replace(init=init, merge=merge, local=local, additive=False, linear=False)


def pruner(fault: str = ""):
    part = static(sparsity=0.5)

    def init(layout, x, schedule, gen):
        state, mask = part.init(layout, x, schedule, gen)
        if fault == "float":
            mask = mask.float()
        if fault == "short":
            mask = mask[:-1]
        if fault == "padding":
            mask = torch.ones_like(mask)
        if fault == "empty":
            mask = torch.zeros_like(mask)
        return state, mask

    def evolve(state, mask, x, replies, schedule, gen):
        if fault == "count":
            mask = mask.clone()
            mask[torch.nonzero(mask)[0]] = False
        if fault == "writes":
            mask[torch.nonzero(mask)[0]] = False
        return ({"t": object()} if fault == "object" else state), mask

    def probe(task):
        if fault == "no probe":
            return {}
        index = np.array([3, 1]) if fault == "index" else torch.ones(2) if fault == "tensor" else np.array([1, 3])
        return Probe(report=lambda: {"index": index})

    return part._replace(init=init, evolve=evolve, probe=probe)


def contribution(fault: str = ""):
    def score(state, cohort, utility, gen):
        phi = torch.ones(len(cohort.clients), dtype=torch.float64)
        if fault == "float32":
            phi = phi.float()
        if fault == "long":
            phi = torch.cat([phi, phi])
        return phi if fault == "bare" else Scores(phi)

    return Contribution(score, report=lambda task: {"loss": 1.0 if fault == "report" else np.ones(1)})


def weighting(fault: str = ""):
    part = uniform()

    def weigh(state, phi, cohort):
        weights = torch.full_like(phi, 1 / len(phi))
        if fault == "sum":
            weights *= 2
        if fault == "negative":
            weights[0], weights[1] = -weights[0], 3 * weights[1]
        return state, weights

    return part._replace(weigh=weigh, fixed=False, init=(lambda n: {}) if fault == "no weights" else part.init)


def codec(fault: str = ""):
    part = float32()

    def encode(values):
        return {"values": values} if fault == "tensor" else [values.numpy()] if fault == "list" else part.encode(values)

    def decode(arrays, K):
        values = part.decode(arrays, K)
        return values.double() if fault == "double" else values[:-1] if fault == "short" else values * 2

    def coded(values, coding):
        return {"values": values.numpy() + coding.gen.random() + random(fault == "more chance")}

    def random(wanted):
        return np.random.default_rng().random() if wanted else 0

    if fault == "coding":
        return part._replace(encode=coded)
    if fault == "more chance":
        return part._replace(encode=coded, exact=False, draws=True)
    if fault == "chance":
        return part._replace(encode=lambda values: {"values": values.numpy() + random(True)}, exact=False)
    return part._replace(encode=encode, decode=decode, draws=fault == "no coding")


def dataset(data_dir, fault: str = ""):
    made = synthetic(data_dir, samples=120, size=4, classes=4)
    x, y = made.x_train.copy(), made.y_train.copy()
    if fault == "label":
        y[0] = 4
    if fault == "nan":
        x = x.astype(np.float32)
        x[0] = np.nan
        made = made._replace(x_test=made.x_test.astype(np.float32))
    made = made._replace(x_train=x, y_train=y)
    if fault == "mean":
        made = made._replace(mean=0.5)
    if fault == "classes":
        made = made._replace(classes="4")
    return (x, y) if fault == "pair" else made


def partition(fault: str = ""):
    def deal(labels, clients, gen):
        shards = np.array_split(np.arange(len(labels)), clients)
        if fault == "few":
            shards = shards[:-1]
        if fault == "twice":
            shards[1] = shards[0]
        if fault == "beyond":
            shards[0] = shards[0] + len(labels)
        if fault == "empty":
            shards[0] = shards[0][:0]
        return shards

    return 3 if fault == "number" else deal


def noise(fault: str = ""):
    def corrupt(labels, level, classes, gen):
        if fault == "in place":
            labels[0] = (labels[0] + 1) % classes
        return labels + 1 if fault == "beyond" else labels[:-1] if fault == "short" else labels

    return Noise(lambda clients, gen: np.ones(clients - (fault == "rates")), corrupt)


def features(fault: str = ""):
    def apply(inputs, labels, level, classes, gen):
        return inputs / 0 if fault == "infinite" else inputs.double() if fault == "double" else inputs[:-1]

    return Features(lambda clients, gen: np.ones(clients), apply)


def fault(fault: str = ""):
    who = (lambda clients, gen: np.ones(clients)) if fault == "who" else (lambda clients, gen: np.ones(clients, bool))
    return Fault(who, 2 if fault == "quality" else 0.5, labels=lambda labels, classes, gen: labels - 1,
                 local=(lambda task, train, previous: None) if fault == "local" else None)


def sampler(fault: str = ""):
    part = drawn()

    def draw(gen, count, known):
        clients = part.draw(gen, count, known)
        if fault == "twice":
            clients[1] = clients[0]
        return clients.int() if fault == "int32" else clients[:-1] if fault == "few" else clients

    return part._replace(draw=draw)


def devices(fault: str = ""):
    part = no_devices()

    def at(seconds, N, draw):
        fleet = part.at(seconds, N, draw)
        return fleet._replace(speed=fleet.speed.float()) if fault == "float32" else tuple(fleet)

    return part._replace(at=at)


def timing(fault: str = ""):
    return Timing(buffer=2) if fault == "no discount" else Timing(deadline=-1.0)
'''
BREACHES = [
    ("strategy", "list in state", "expected tensors in the state that init returns, got a list of 1 under 'sum'"),
    ("strategy", "no state", "expected the state that init returns to be a dict of tensors, got 3"),
    ("strategy", "pruned", "expected merge to move entries of the support only, got 32 others"),
    ("strategy", "double", "the model that merge returns as a tensor (80,) float32, got a tensor (80,) float64"),
    ("strategy", "short", "got a tensor (79,) float32"),
    ("strategy", "writes", "expected merge to leave its input x as it is"),
    ("strategy", "forgets", "expected merge to keep the entries of its state, got none for t"),
    ("strategy", "alone", "expected (state, x) from merge, got a tensor (80,) float32"),
    ("strategy", "no loss", "expected a Trained from local, got None"),
    ("strategy", "moves pruned", "expected local to leave pruned weights at 0, got 32 that it has moved"),
    ("strategy", "not callable", "expected a function as Strategy.merge, got 3"),
    ("strategy", "alone in reply", "expected (answer, kept) from reply, got a dict"),
    ("strategy", "short reply", "expected a of the answer of reply as a vector (80,), got a tensor (3,) float32"),
    ("strategy", "strange", "expected names of a as the answer of reply, got 'b'"),
    ("strategy", "no reply", "expected a function reply, since answers or keeps name arrays, got none"),
    ("strategy", "no field", "expected a Field for 'a' in answers, got 'support'"),
    ("strategy", "fold", "expected fold of the Field 'a' as 'rows', 'sum' or 'list', got 'mean'"),
    ("strategy", "send", "expected a dict of tensors as send, got a list of 1"),
    ("pruner", "float", "expected the mask that init returns as a tensor (64,) bool, got a tensor (64,) float32"),
    ("pruner", "short", "got a tensor (63,) bool"),
    ("pruner", "empty", "expected init to keep some weights"),
    ("pruner", "count", "expected evolve to keep 32 weights, since the Pruner is exact, got 31"),
    ("pruner", "writes", "expected evolve to leave its input mask as it is"),
    ("pruner", "object", "in the state that evolve returns, got an object under 't'"),
    ("pruner", "no probe", "expected a Probe from probe, got a dict"),
    ("pruner", "index", "expected the probe's index to hold sorted positions in [0, 64)"),
    ("pruner", "tensor", "expected what the probe reports as numpy arrays of numbers, got a tensor (2,) float32"),
    ("contribution", "float32", "expected the scores phi as a tensor (3,) float64, got a tensor (3,) float32"),
    ("contribution", "long", "got a tensor (6,) float64"),
    ("contribution", "bare", "expected Scores from score, got a tensor (3,) float64"),
    ("contribution", "report", "expected what report returns as numpy arrays of numbers, got 1.0 under 'loss'"),
    ("weighting", "sum", "expected weights >= 0 that sum to 1, got [0.6667, 0.6667, 0.6667] with the sum 2"),
    ("weighting", "negative", "got [-0.3333, 1, 0.3333] with the sum 1"),
    ("weighting", "no weights", "expected an entry weights (3,) in the state that init returns"),
    ("codec", "tensor", "expected what encode returns as numpy arrays of numbers, got a tensor (5,) float32"),
    ("codec", "list", "expected what encode returns as a dict of numpy arrays, got a list of 1"),
    ("codec", "double", "expected what decode returns as a tensor (5,) float32, got a tensor (5,) float64"),
    ("codec", "short", "got a tensor (4,) float32"),
    ("codec", "coding", "expected encode to take (values), got encode(values, coding); return Codec(..., draws="),
    ("codec", "no coding", "expected encode to take (values, coding), since the Codec draws"),
    ("codec", "chance", "expected encode to make the same arrays of the same values, got other ones at the "
                        "second time; return Codec(..., draws=True)"),
    ("codec", "more chance", "got other ones at the second time; draw from coding.gen alone"),
    ("codec", "doubles", "expected decode to give back the very values, since the Codec is exact"),
    ("dataset", "label", "y_train must lie in [0, 4), got 0 to 4"),
    ("dataset", "nan", "x_train must be finite, got NaN or infinity"),
    ("dataset", "mean", "expected mean as a tuple with a number for each channel, got 0.5"),
    ("dataset", "classes", "expected classes as a whole number, got '4'"),
    ("dataset", "pair", "expected a Dataset from the factory, got a tuple of 2; return "
                        "fedmpi.core.parts.Dataset("),
    ("partition", "few", "expected a list of 3 index arrays, one a client, got a list of 2"),
    ("partition", "twice", "expected each sample with one client at most, got one that is dealt 2 times"),
    ("partition", "beyond", "expected samples in [0, "),
    ("partition", "empty", "expected samples for every client, got none for client 0"),
    ("partition", "number", "expected a function (labels, clients, gen) -> index arrays from the factory, got 3"),
    ("noise", "beyond", "expected labels in [0, 4), got 1 to 4"),
    ("noise", "short", "expected the labels that it returns as an array ("),
    ("noise", "in place", "expected the labels that it is given to stay as they are"),
    ("noise", "rates", "expected the levels that rates returns as an array (3,) of numbers, got an array (2,) float64"),
    ("features", "infinite", "expected finite inputs, got NaN or infinity"),
    ("features", "double", "expected the inputs that it returns as a tensor (1, 1, 4, 4) float32"),
    ("fault", "who", "expected what who returns as an array (3,) of bools, got an array (3,) float64"),
    ("fault", "quality", "expected a quality in [0, 1], got 2"),
    ("fault", "labels", "expected labels in [0, 4), got -1 to 2"),
    ("sampler", "twice", "expected distinct clients from draw, got one that comes twice"),
    ("sampler", "int32", "expected the clients that draw returns as a tensor (3,) int64, got a tensor (3,) int32"),
    ("sampler", "few", "got a tensor (2,) int64"),
    ("devices", "float32", "expected speed of the Fleet as a tensor (3,) float64, got a tensor (3,) float32"),
    ("devices", "tuple", "expected a Fleet from at, got a tuple of 6"),
    ("timing", "no discount", "expected a discount where there is a buffer, got None"),
    ("timing", "deadline", "expected deadline as a number >= 0, got -1.0"),
]


@pytest.mark.parametrize("kind, fault, message", BREACHES)
def test_a_method_that_breaks_its_contract_is_one_line_before_work_starts(own, kind, fault, message):
    own("my_methods.py", METHODS)
    spec = f"my_methods:{kind}:fault={fault}"
    given = {kind: [spec] if kind == "fault" else spec}
    options = DEFAULTS | SMALL | {"model": "logistic", "pruner": "static:sparsity=0.5"} | given
    with pytest.raises(UserError) as caught:
        plan.set_up(options, print)
    told = str(caught.value)
    assert told.startswith((f"--{kind} {spec}: ", f"data set {spec}: ")) and message in told and "\n" not in told


LATE = """
from fedmpi.compute.sgd import train
from fedmpi.methods.pruning.static import static
from fedmpi.methods.strategies.fedavg import fedavg


def pruner():
    part = static(sparsity=0.5)

    def evolve(state, mask, x, replies, schedule, gen):
        return state, mask | (mask if schedule.t < 2 else replies.layout.full_mask())

    return part._replace(evolve=evolve)


def strategy():
    part = fedavg()

    def local(task):
        trained = train(part.local, task)
        return trained if task.now.t < 2 else None

    return part._replace(local=local)
"""


@pytest.mark.parametrize("ranks, kind, message", [
    (1, "pruner", "expected evolve to keep 320 weights, since the Pruner is exact, got 640"),
    (3, "pruner", "expected evolve to keep 320 weights, since the Pruner is exact, got 640"),
    (3, "strategy", "expected a Trained from local, got None")])
def test_a_contract_that_is_broken_in_a_later_round_is_one_line_too(own, fedmpi, ranks, kind, message):
    own("late.py", LATE)
    parts = {"strategy": "fedavg", "pruner": "static:sparsity=0.5"} | {kind: f"late:{kind}"}
    words = [word for name, spec in parts.items() for word in (f"--{name}", spec)]
    told = fedmpi(ranks, "train", *TINY, "--dataset", "synthetic:samples=60,size=8", *words, "--out", "run.h5", code=2,
                  COLUMNS="80")
    assert f"error: --{kind} late:{kind}: {message}" in told and "Traceback" not in told
    assert read_run("run.h5").attrs["status"] == "failed"


def test_a_divergence_under_a_method_of_the_users_is_told_as_one(own):
    own("my_methods.py", "from fedmpi.methods.strategies.fedavg import fedavg as mine")
    run, state = contracts.assembled(strategy="my_methods:mine", pruner="static:sparsity=0.5", lr=1e30)
    with pytest.raises(DivergedError, match="a smaller --lr may help"):
        contracts.run_rounds(run, state, 1)


def test_an_exception_of_the_servers_part_of_a_method_flies(own):
    own("my_methods.py", METHODS)
    with pytest.raises(ZeroDivisionError):
        plan.set_up(DEFAULTS | SMALL | {"strategy": "my_methods:strategy:fault=raises", "model": "logistic"}, print)


def test_methods_of_the_users_that_keep_their_contract_give_the_catalogues_bits(own, fedmpi):
    own("thin.py", "from fedmpi.methods.strategies.fedavg import fedavg as mine\n"
        "from fedmpi.methods.pruning.set import set as moving\n")
    fedmpi(1, "train", *TINY, "--strategy", "fedavg", "--pruner", "set:sparsity=0.5", "--out", "a.h5")
    fedmpi(1, "train", *TINY, "--strategy", "thin:mine", "--pruner", "thin:moving:sparsity=0.5", "--contribution",
           "size", "--weighting", "size", "--out", "b.h5")
    one, other = (read_run(path).rounds["weights_digest"] for path in ("a.h5", "b.h5"))
    assert (one == other).all()


# ---------------------------------------------------------------- what a method's options were

HALF = ("from fedmpi.methods.pruning.static import static\n\n\n"
        "def half(share: float = {}):\n    return static(sparsity=share)\n")


@pytest.fixture
def half(own, fedmpi):
    """A run ``a.h5`` of one of two rounds with a pruner of the user's; ``half(text)`` writes another source of it."""
    own("my_half.py", HALF.format(0.5))
    fedmpi(1, "train", *TINY, "--strategy", "fedavg", "--pruner", "my_half:half", "--until", 1, "--out", "a.h5")

    def change(text):
        sys.modules.pop("my_half", None)
        return own("my_half.py", text)

    return change


def test_the_run_file_has_every_option_of_every_part(half, fedmpi):
    parts = read_run("a.h5").attrs["parts"]
    assert [part["kind"] for part in parts] == [
        "dataset", "partition", "noise", "features", "model", "adapters", "task", "strategy", "optimiser", "schedule",
        "pruner", "contribution", "weighting", "codec", "devices", "sampler", "timing"]
    found = {part["kind"]: part for part in parts}
    assert found["pruner"]["options"] == {"share": 0.5} and found["pruner"]["files"] == ["my_half.py"]
    assert found["strategy"]["options"] == {} and found["optimiser"]["options"]["momentum"] == 0.9
    assert "source" not in found["strategy"]
    told = fedmpi(1, "show", "a.h5", "--options")
    assert re.search(r"pruner +my_half:half: share=0.5, my_half.py [0-9a-f]{12}\n", told)


@pytest.mark.parametrize("text, message", [
    (HALF.format(0.25), "half: share was 0.5, is 0.25; pruner my_half:half: the digest of its source was"),
    (HALF.format(0.5) + "# seen\n", "with changed parts: pruner my_half:half: the digest of its source was"),
    (HALF.format(0.5).replace("share", "part"), "share was 0.5, is not there; pruner my_half:half: part was not")])
def test_a_resume_with_another_default_or_source_is_refused(half, fedmpi, text, message):
    half(text)
    told = fedmpi(1, "train", "--resume", "a.h5", code=2)
    assert message in told and len(told.strip().splitlines()) == 1
    half(HALF.format(0.5))
    fedmpi(1, "train", "--resume", "a.h5")


def test_a_resume_with_another_default_of_the_catalogues_is_refused(half, fedmpi):
    with h5py.File("a.h5", "r+") as file:
        parts = json.loads(file.attrs["parts"])
        next(part for part in parts if part["kind"] == "optimiser")["options"]["eps"] = 0.5
        file.attrs["parts"] = json.dumps(parts)
    told = fedmpi(1, "train", "--resume", "a.h5", code=2)
    assert "optimiser sgd:momentum=0.9,weight_decay=0.001: eps was 0.5, is not there" in told


def test_a_run_of_before_parts_were_recorded_goes_on_and_is_compared(half, fedmpi):
    with h5py.File("a.h5", "r+") as file:
        del file.attrs["parts"]
    half(HALF.format(0.25))
    fedmpi(1, "train", "--like", "a.h5", "--until", 1, "--out", "b.h5")
    assert "share" not in fedmpi(1, "compare", "a.h5", "b.h5")
    assert "before all options" in fedmpi(1, "show", "a.h5", "--options", code=2)
    fedmpi(1, "train", "--resume", "a.h5")


def test_compare_and_like_name_a_default_that_has_changed(half, fedmpi):
    half(HALF.format(0.25))
    told = fedmpi(1, "train", "--like", "a.h5", "--until", 1, "--seed", 1, "--out", "b.h5")
    assert "but seed 1 (was 0); pruner my_half:half: share was 0.5, is 0.25; pruner my_half:half: the digest" in told
    told = fedmpi(1, "compare", "a.h5", "b.h5")
    assert re.search(r"pruner my_half:half: share +0.5 +0.25\n", told)
    assert re.search(r"pruner my_half:half: source +[0-9a-f]{12} +[0-9a-f]{12}\n", told)


def test_defaults_that_json_has_no_word_for_are_the_same_in_every_process(own):
    own("objects.py", "def part(how=max, many=(1, 2), what=object): pass\nother = lambda how=object(): 0\n")
    assert settings.of_part("pruner", "objects:part")["options"] == {"how": "max", "many": [1, 2], "what": "object"}
    assert settings.of_part("pruner", "objects:other")["options"] == {"how": "<object object>"}


# ---------------------------------------------------------------- choices


def test_choices_are_listed_and_completed(fedmpi):
    told = fedmpi(1, "list", "pruner", "rigl")
    assert "distribution=erk  uniform, first-dense, er, erk or thesis" in told
    line = "fedmpi train --pruner rigl:distribution="
    found = answer(cli, {"_FEDMPI_COMPLETE": "fish_complete", "COMP_LINE": line}).splitlines()
    assert found == [f"rigl:distribution={each}" for each in ("erk", "uniform", "first-dense", "er", "thesis")]


@pytest.mark.parametrize("kind, spec, message", [
    ("pruner", "rigl:distribution=ekr",
     "distribution must be uniform, first-dense, er, erk or thesis, got 'ekr'; did you mean e"),
    ("contribution", "shapley:of=acuracy",
     "of must be loss, headline or accuracy, got 'acuracy'; did you mean accuracy?"),
    ("dataset", "hdf5:layout=nchv",
     "layout must be auto, nchw, nhwc, nhw, ncl, nlc or as-is, got 'nchv'; did you mean nchw?"),
    ("fault", "free-rider:kind=stail", "kind must be zero, random or stale, got 'stail'")])
def test_a_wrong_choice_is_told_with_the_right_ones(kind, spec, message):
    with pytest.raises(UserError, match=f"^{spec}: {re.escape(message)}"):
        parse(catalog.KINDS[kind], spec)
