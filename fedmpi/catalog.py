"""Every selectable name, and how ``name:option=value,option=value`` becomes a part.

A table holds ``name -> "module:function"``: strings, so that listing costs no import. A factory's keyword arguments are
its options; they are read from its source without importing it, so a misspelt option fails before torch is loaded.
Any importable ``package.module:function`` serves as well. Its docstring says what it does and, a line each, its
paper, what it sends and an example: FIELDS.
"""

import ast
import functools
import importlib
import importlib.util
import inspect
import re
from typing import NamedTuple

from fedmpi.errors import UserError

STRATEGIES = {
    "fedavg": "fedmpi.strategies.fedavg:fedavg",
    "fedprox": "fedmpi.strategies.fedprox:fedprox",
    "prunefl": "fedmpi.strategies.prunefl:prunefl",
    "feddst": "fedmpi.strategies.feddst:feddst",
    "thesis": "fedmpi.strategies.thesis:thesis",
    "thesis-text": "fedmpi.strategies.thesis:thesis_text",
    "thesis-code": "fedmpi.strategies.thesis:thesis_code",
    "median": "fedmpi.strategies.median:median",
    "trimmed-mean": "fedmpi.strategies.trimmed_mean:trimmed_mean",
    "krum": "fedmpi.strategies.krum:krum",
    "multi-krum": "fedmpi.strategies.krum:multi_krum",
    "geometric-median": "fedmpi.strategies.geometric_median:geometric_median",
    "fltrust": "fedmpi.strategies.fltrust:fltrust",
}
PRUNERS = {
    "dense": "fedmpi.pruning.dense:dense",
    "static": "fedmpi.pruning.static:static",
    "set": "fedmpi.pruning.set:set",
    "rigl": "fedmpi.pruning.rigl:rigl",
    "residual": "fedmpi.pruning.residual:residual",
    "feddst": "fedmpi.pruning.feddst:feddst",
    "prunefl": "fedmpi.pruning.prunefl:prunefl",
    "adaptive": "fedmpi.pruning.adaptive:adaptive",
}
CONTRIBUTIONS = {
    "size": "fedmpi.contribution.size:size",
    "uniform": "fedmpi.contribution.uniform:uniform",
    "cosine": "fedmpi.contribution.cosine:cosine",
    "loo-cosine": "fedmpi.contribution.cosine:loo_cosine",
    "loo": "fedmpi.contribution.loo:loo",
    "accuracy-gain": "fedmpi.contribution.gain:accuracy_gain",
    "loss-gain": "fedmpi.contribution.gain:loss_gain",
    "shapley": "fedmpi.contribution.shapley:shapley",
    "shapley-mc": "fedmpi.contribution.shapley_mc:shapley_mc",
    "tmc-shapley": "fedmpi.contribution.tmc_shapley:tmc_shapley",
    "gtg-shapley": "fedmpi.contribution.gtg_shapley:gtg_shapley",
    "mr-shapley": "fedmpi.contribution.mr_shapley:mr_shapley",
    "or-shapley": "fedmpi.contribution.or_shapley:or_shapley",
    "comfedsv": "fedmpi.contribution.comfedsv:comfedsv",
    "least-core": "fedmpi.contribution.least_core:least_core",
    "least-core-mc": "fedmpi.contribution.least_core:least_core_mc",
    "banzhaf": "fedmpi.contribution.banzhaf:banzhaf",
    "influence": "fedmpi.contribution.influence:influence",
    "influence-hessian": "fedmpi.contribution.influence:influence_hessian",
    "robust-volume": "fedmpi.contribution.volume:robust_volume",
    "information-gain": "fedmpi.contribution.information:information_gain",
    "shapfed": "fedmpi.contribution.classwise:shapfed",
    "focus": "fedmpi.contribution.focus:focus",
}
WEIGHTINGS = {
    "size": "fedmpi.weighting.size:size",
    "uniform": "fedmpi.weighting.uniform:uniform",
    "proportional": "fedmpi.weighting.proportional:proportional",
    "relu": "fedmpi.weighting.relu:relu",
    "softmax": "fedmpi.weighting.softmax:softmax",
    "min-max": "fedmpi.weighting.minmax:minmax",
    "tanh": "fedmpi.weighting.tanh:tanh",
    "thesis": "fedmpi.weighting.thesis:thesis",
}
CODECS = {
    "float32": "fedmpi.wire.values:float32",
    "float16": "fedmpi.wire.values:float16",
    "bfloat16": "fedmpi.wire.values:bfloat16",
    "int8": "fedmpi.wire.values:int8",
    "sign": "fedmpi.wire.values:sign",
}
DATASETS = {
    "digits": "fedmpi.data.digits:digits",
    "mnist": "fedmpi.data.mnist:mnist",
    "fashion-mnist": "fedmpi.data.mnist:fashion_mnist",
    "emnist": "fedmpi.data.mnist:emnist",
    "cifar10": "fedmpi.data.cifar:cifar10",
    "cifar100": "fedmpi.data.cifar:cifar100",
    "svhn": "fedmpi.data.svhn:svhn",
    "hdf5": "fedmpi.data.hdf5:hdf5",
    "synthetic": "fedmpi.data.synthetic:synthetic",
}
PARTITIONS = {
    "iid": "fedmpi.partition.iid:iid",
    "dirichlet": "fedmpi.partition.dirichlet:dirichlet",
    "shards": "fedmpi.partition.shards:shards",
    "classes": "fedmpi.partition.classes:classes",
    "quantity": "fedmpi.partition.quantity:quantity",
    "lognormal": "fedmpi.partition.lognormal:lognormal",
}
NOISES = {
    "none": "fedmpi.noise.none:none",
    "symmetric": "fedmpi.noise.symmetric:symmetric",
    "pair": "fedmpi.noise.pair:pair",
    "graded": "fedmpi.noise.graded:graded",
    "thesis": "fedmpi.noise.thesis:thesis",
    "asymmetric": "fedmpi.noise.asymmetric:asymmetric",
    "class-dependent": "fedmpi.noise.class_dependent:class_dependent",
    "fedcorr": "fedmpi.noise.fedcorr:fedcorr",
    "permuted": "fedmpi.noise.permuted:permuted",
}
FEATURES = {
    "none": "fedmpi.features.none:none",
    "gaussian": "fedmpi.features.gaussian:gaussian",
    "rotation": "fedmpi.features.rotation:rotation",
    "restyle": "fedmpi.features.restyle:restyle",
}
FAULTS = {
    "duplicate": "fedmpi.fault.duplicate:duplicate",
    "label-flip": "fedmpi.fault.label_flip:label_flip",
    "feature-noise": "fedmpi.fault.feature_noise:feature_noise",
    "free-rider": "fedmpi.fault.free_rider:free_rider",
    "scaled": "fedmpi.fault.scaled:scaled",
    "sign-flip": "fedmpi.fault.sign_flip:sign_flip",
}
MODELS = {
    "logistic": "fedmpi.models.logistic:logistic",
    "2nn": "fedmpi.models.mlp2nn:mlp2nn",
    "small-cnn": "fedmpi.models.small_cnn:small_cnn",
    "cnn": "fedmpi.models.cnn:cnn",
    "mcmahan-cnn": "fedmpi.models.mcmahan_cnn:mcmahan_cnn",
    "lenet5": "fedmpi.models.lenet5:lenet5",
    "mnistnet": "fedmpi.models.mnistnet:mnistnet",
    "cifar10net": "fedmpi.models.cifar10net:cifar10net",
    "pfl-cnn": "fedmpi.models.pfl_cnn:pfl_cnn",
    "torchvision": "fedmpi.models.zoo:torchvision",
}
DEVICES = {
    "none": "fedmpi.devices.none:none",
    "constant": "fedmpi.devices.constant:constant",
    "drawn": "fedmpi.devices.drawn:drawn",
    "tiers": "fedmpi.devices.tiers:tiers",
    "trace": "fedmpi.devices.trace:trace",
}
SAMPLERS = {
    "uniform": "fedmpi.sampler.uniform:uniform",
    "size": "fedmpi.sampler.size:size",
    "contribution": "fedmpi.sampler.contribution:contribution",
    "power-of-choice": "fedmpi.sampler.power_of_choice:power_of_choice",
}
AGGREGATIONS = {
    "sync": "fedmpi.aggregation.sync:sync",
    "fedasync": "fedmpi.aggregation.fedasync:fedasync",
    "fedbuff": "fedmpi.aggregation.fedbuff:fedbuff",
}
KINDS = {
    "strategy": STRATEGIES, "pruner": PRUNERS, "contribution": CONTRIBUTIONS, "weighting": WEIGHTINGS, "codec": CODECS,
    "dataset": DATASETS, "partition": PARTITIONS, "noise": NOISES, "features": FEATURES, "fault": FAULTS,
    "model": MODELS, "devices": DEVICES, "sampler": SAMPLERS, "aggregation": AGGREGATIONS,
}


class Entry(NamedTuple):
    """A factory as its source declares it, nothing imported."""

    target: str
    signature: inspect.Signature
    line: str                     # first line of its docstring
    text: str                     # docstring of its module
    fields: dict                  # what its docstring says under FIELDS


FIELDS = ("Paper", "Up", "Down", "Example")     # its source; from and to clients on the wire; a command line


def resolve(table, name):
    """``"module:function"`` for a name of ``table`` or for any importable ``package.module:function``."""
    if name in table:
        return table[name]
    if ":" in name:
        return name
    hint = _hint(name, table)
    raise UserError(f"unknown name {name!r}{hint or '.'} Known: {', '.join(table)}, or package.module:function")


def _hint(name, known):
    """``; did you mean ...?`` where a known name is close, else nothing."""
    import difflib
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def quoted(value):
    """A value as it stands in a spec, where a comma would begin the next option."""
    return value.replace("\\", "\\\\").replace(",", "\\,")


def _items(text):
    """The texts between the commas of ``text``, without those of ``quoted`` values. A backslash before anything else
    stands for itself."""
    pieces = re.split(r"(\\\\|\\,|,)", text)
    items = [""]
    for piece in pieces:
        if piece == ",":
            items.append("")
        else:
            items[-1] += piece[1:] if piece in ("\\\\", "\\,") else piece
    return items


def split(spec):
    """``(name, options text)`` of ``name[:options]``, where name may be ``package.module:function``."""
    head, _, rest = spec.partition(":")
    if rest and "=" not in rest.partition(",")[0].partition(":")[0]:
        function, _, rest = rest.partition(":")
        return f"{head}:{function}", rest
    return head, rest


def entry(table, name):
    """The ``Entry`` of a name; UserError where there is no such module or function."""
    target = resolve(table, name)
    module, _, function = target.partition(":")
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    except Exception as error:               # a parent package runs when its child is looked for
        raise UserError(f"module {module!r} cannot be found: {type(error).__name__}: {error}") from error
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        meant = f" Or an option of {module}? {module}:option=value" * (module in table)
        raise UserError(f"no module {module!r} to take {function!r} from; is it installed or on PYTHONPATH?{meant}")
    try:
        with open(spec.origin, encoding="utf-8") as file:
            found = _declared(file.read(), spec.origin, function)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f"module {module!r} ({spec.origin}) cannot be read: {error}") from error
    if found is None:
        raise UserError(f"module {module!r} defines no function {function!r}")
    return Entry(target, *found)


@functools.lru_cache(maxsize=256)                # a study asks for the same parts once a run, hundreds of times
def _declared(source, path, function):
    """``Entry``'s fields but the first of a function or class in a module's source; None where it has none."""
    tree = ast.parse(source, path)
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == function:
            doc = ast.get_docstring(node) or ""
            return _signature(node), doc.partition("\n")[0], ast.get_docstring(tree) or "", _fields(doc)
    return None


def _fields(doc):
    """``{field: text}`` of the lines ``Field: text`` of a docstring and the indented ones that follow each."""
    found = re.findall(rf"^({'|'.join(FIELDS)}): (.*(?:\n +\S.*)*)", doc, re.M)
    return {name: " ".join(text.split()).removesuffix(".") for name, text in found}


def _signature(node):
    """An ``inspect.Signature`` of the options: literal defaults and annotations of str, int, float, bool."""
    if isinstance(node, ast.ClassDef):
        node = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if node is None:
            return inspect.Signature()
    empty, types = inspect.Parameter.empty, {"str": str, "int": int, "float": float, "bool": bool}
    positional = node.args.posonlyargs + node.args.args
    defaults = [empty] * (len(positional) - len(node.args.defaults)) + [_literal(d) for d in node.args.defaults]
    keyword = [(a, empty if d is None else _literal(d)) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults)]
    pairs = list(zip(positional, defaults)) + keyword
    return inspect.Signature([
        inspect.Parameter(a.arg, inspect.Parameter.KEYWORD_ONLY, default=default,
                          annotation=types.get(getattr(a.annotation, "id", None), empty))
        for a, default in pairs if a.arg != "self"])


def _literal(node):
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def parse(table, spec):
    """``(target, options)``: names and values checked against the factory's source; nothing is built."""
    name, text = split(spec)
    found = entry(table, name)
    known = {p.name: p for p in found.signature.parameters.values() if p.default is not inspect.Parameter.empty}
    options = {}
    for item in filter(None, _items(text)):
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals:
            raise UserError(f"in {spec!r}: expected option=value, got {item!r}; a comma inside a value is written \\,")
        if key not in known:
            hint = _hint(key, known)
            takes = ", ".join(f"{p.name}={p.default}" for p in known.values()) or "no options"
            raise UserError(f"{name} has no option {key!r}{hint or '.'} It takes ({takes})")
        if key in options:
            raise UserError(f"in {spec!r}: {key} is given twice")
        options[key] = _convert(name, known[key], value.strip())
    return found.target, options


def _convert(name, parameter, text):
    """The option's value in its declared type, or in that of its default."""
    kind = parameter.annotation
    if kind is inspect.Parameter.empty:
        kind = type(parameter.default) if isinstance(parameter.default, (bool, int, float, str)) else str
    try:
        if kind is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise UserError(f"{name}: {parameter.name} must be {wanted}, got {text!r}") from None


def load(table, name):
    """The factory itself, imported."""
    module, _, function = resolve(table, name).partition(":")
    return getattr(importlib.import_module(module), function)


def make(table, spec, *arguments):
    """The part that ``spec`` names: its factory called with ``arguments`` and the options."""
    target, options = parse(table, spec)
    try:
        return load({}, target)(*arguments, **options)
    except ValueError as error:
        raise UserError(f"{spec}: {error}") from error
