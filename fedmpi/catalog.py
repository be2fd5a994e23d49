"""Every selectable name, and how ``name:option=value,option=value`` becomes a part.

A table holds ``name -> "module:function"``: strings, so that listing costs no import. A factory's
arguments with defaults are its options; they are read from its source without importing it, so a
misspelt option fails before torch is loaded. Any importable ``package.module:factory`` serves as
well, see ``fedmpi.plugins.factories``. Its docstring says what it does and, a line each, its paper, what it
sends and an example: FIELDS.
"""

import inspect
import re
import types
import typing
from typing import NamedTuple

from fedmpi.plugins import factories
from fedmpi.core.errors import UserError
from fedmpi.plugins.shadow import namesake

STRATEGIES = {
    "fedavg": "fedmpi.methods.strategies.fedavg:fedavg",
    "fedprox": "fedmpi.methods.strategies.fedprox:fedprox",
    "prunefl": "fedmpi.methods.strategies.prunefl:prunefl",
    "feddst": "fedmpi.methods.strategies.feddst:feddst",
    "thesis": "fedmpi.methods.strategies.thesis:thesis",
    "thesis-text": "fedmpi.methods.strategies.thesis:thesis_text",
    "thesis-code": "fedmpi.methods.strategies.thesis:thesis_code",
    "median": "fedmpi.methods.strategies.median:median",
    "trimmed-mean": "fedmpi.methods.strategies.trimmed_mean:trimmed_mean",
    "krum": "fedmpi.methods.strategies.krum:krum",
    "multi-krum": "fedmpi.methods.strategies.krum:multi_krum",
    "geometric-median": "fedmpi.methods.strategies.geometric_median:geometric_median",
    "fltrust": "fedmpi.methods.strategies.fltrust:fltrust",
    "fedmp": "fedmpi.methods.strategies.fedmp:fedmp",
    "feddu": "fedmpi.methods.strategies.feddu:feddu",
    "fedavgm": "fedmpi.methods.strategies.fedavgm:fedavgm",
    "fedadam": "fedmpi.methods.strategies.fedopt:fedadam",
    "fedyogi": "fedmpi.methods.strategies.fedopt:fedyogi",
    "fedadagrad": "fedmpi.methods.strategies.fedopt:fedadagrad",
    "fednova": "fedmpi.methods.strategies.fednova:fednova",
    "scaffold": "fedmpi.methods.strategies.scaffold:scaffold",
    "feddyn": "fedmpi.methods.strategies.feddyn:feddyn",
    "fedper": "fedmpi.methods.strategies.fedper:fedper",
    "fedbn": "fedmpi.methods.strategies.fedper:fedbn",
    "fedpcl": "fedmpi.methods.strategies.fedpcl:fedpcl",
}
PRUNERS = {
    "dense": "fedmpi.methods.pruning.dense:dense",
    "static": "fedmpi.methods.pruning.static:static",
    "set": "fedmpi.methods.pruning.set:set",
    "rigl": "fedmpi.methods.pruning.rigl:rigl",
    "residual": "fedmpi.methods.pruning.residual:residual",
    "feddst": "fedmpi.methods.pruning.feddst:feddst",
    "prunefl": "fedmpi.methods.pruning.prunefl:prunefl",
    "adaptive": "fedmpi.methods.pruning.adaptive:adaptive",
    "fedmp": "fedmpi.methods.pruning.fedmp:fedmp",
}
CONTRIBUTIONS = {
    "size": "fedmpi.methods.contribution.size:size",
    "uniform": "fedmpi.methods.contribution.uniform:uniform",
    "cosine": "fedmpi.methods.contribution.cosine:cosine",
    "loo-cosine": "fedmpi.methods.contribution.cosine:loo_cosine",
    "loo": "fedmpi.methods.contribution.loo:loo",
    "accuracy-gain": "fedmpi.methods.contribution.gain:accuracy_gain",
    "loss-gain": "fedmpi.methods.contribution.gain:loss_gain",
    "shapley": "fedmpi.methods.contribution.shapley:shapley",
    "shapley-mc": "fedmpi.methods.contribution.shapley_mc:shapley_mc",
    "tmc-shapley": "fedmpi.methods.contribution.tmc_shapley:tmc_shapley",
    "gtg-shapley": "fedmpi.methods.contribution.gtg_shapley:gtg_shapley",
    "mr-shapley": "fedmpi.methods.contribution.mr_shapley:mr_shapley",
    "or-shapley": "fedmpi.methods.contribution.or_shapley:or_shapley",
    "comfedsv": "fedmpi.methods.contribution.comfedsv:comfedsv",
    "least-core": "fedmpi.methods.contribution.least_core:least_core",
    "least-core-mc": "fedmpi.methods.contribution.least_core:least_core_mc",
    "banzhaf": "fedmpi.methods.contribution.banzhaf:banzhaf",
    "influence": "fedmpi.methods.contribution.influence:influence",
    "influence-hessian": "fedmpi.methods.contribution.influence:influence_hessian",
    "robust-volume": "fedmpi.methods.contribution.volume:robust_volume",
    "information-gain": "fedmpi.methods.contribution.information:information_gain",
    "shapfed": "fedmpi.methods.contribution.classwise:shapfed",
    "focus": "fedmpi.methods.contribution.focus:focus",
}
WEIGHTINGS = {
    "size": "fedmpi.methods.weighting.size:size",
    "uniform": "fedmpi.methods.weighting.uniform:uniform",
    "proportional": "fedmpi.methods.weighting.proportional:proportional",
    "relu": "fedmpi.methods.weighting.relu:relu",
    "softmax": "fedmpi.methods.weighting.softmax:softmax",
    "min-max": "fedmpi.methods.weighting.minmax:minmax",
    "tanh": "fedmpi.methods.weighting.tanh:tanh",
    "thesis": "fedmpi.methods.weighting.thesis:thesis",
}
CODECS = {
    "float32": "fedmpi.methods.codecs.values:float32",
    "float16": "fedmpi.methods.codecs.values:float16",
    "bfloat16": "fedmpi.methods.codecs.values:bfloat16",
    "int8": "fedmpi.methods.codecs.values:int8",
    "sign": "fedmpi.methods.codecs.values:sign",
}
DATASETS = {
    "digits": "fedmpi.methods.datasets.digits:digits",
    "mnist": "fedmpi.methods.datasets.mnist:mnist",
    "fashion-mnist": "fedmpi.methods.datasets.mnist:fashion_mnist",
    "emnist": "fedmpi.methods.datasets.mnist:emnist",
    "cifar10": "fedmpi.methods.datasets.cifar:cifar10",
    "cifar100": "fedmpi.methods.datasets.cifar:cifar100",
    "svhn": "fedmpi.methods.datasets.svhn:svhn",
    "hdf5": "fedmpi.methods.datasets.hdf5:hdf5",
    "synthetic": "fedmpi.methods.datasets.synthetic:synthetic",
}
PARTITIONS = {
    "iid": "fedmpi.methods.partition.iid:iid",
    "dirichlet": "fedmpi.methods.partition.dirichlet:dirichlet",
    "shards": "fedmpi.methods.partition.shards:shards",
    "classes": "fedmpi.methods.partition.classes:classes",
    "quantity": "fedmpi.methods.partition.quantity:quantity",
    "lognormal": "fedmpi.methods.partition.lognormal:lognormal",
    "natural": "fedmpi.methods.partition.natural:natural",
}
NOISES = {
    "none": "fedmpi.methods.noise.none:none",
    "symmetric": "fedmpi.methods.noise.symmetric:symmetric",
    "pair": "fedmpi.methods.noise.pair:pair",
    "graded": "fedmpi.methods.noise.graded:graded",
    "thesis": "fedmpi.methods.noise.thesis:thesis",
    "asymmetric": "fedmpi.methods.noise.asymmetric:asymmetric",
    "class-dependent": "fedmpi.methods.noise.class_dependent:class_dependent",
    "fedcorr": "fedmpi.methods.noise.fedcorr:fedcorr",
    "permuted": "fedmpi.methods.noise.permuted:permuted",
}
FEATURES = {
    "none": "fedmpi.methods.features.none:none",
    "gaussian": "fedmpi.methods.features.gaussian:gaussian",
    "rotation": "fedmpi.methods.features.rotation:rotation",
    "restyle": "fedmpi.methods.features.restyle:restyle",
}
FAULTS = {
    "duplicate": "fedmpi.methods.fault.duplicate:duplicate",
    "label-flip": "fedmpi.methods.fault.label_flip:label_flip",
    "feature-noise": "fedmpi.methods.fault.feature_noise:feature_noise",
    "free-rider": "fedmpi.methods.fault.free_rider:free_rider",
    "scaled": "fedmpi.methods.fault.scaled:scaled",
    "sign-flip": "fedmpi.methods.fault.sign_flip:sign_flip",
}
MODELS = {
    "logistic": "fedmpi.methods.models.logistic:logistic",
    "2nn": "fedmpi.methods.models.mlp2nn:mlp2nn",
    "small-cnn": "fedmpi.methods.models.small_cnn:small_cnn",
    "cnn": "fedmpi.methods.models.cnn:cnn",
    "mcmahan-cnn": "fedmpi.methods.models.mcmahan_cnn:mcmahan_cnn",
    "lenet5": "fedmpi.methods.models.lenet5:lenet5",
    "mnistnet": "fedmpi.methods.models.mnistnet:mnistnet",
    "cifar10net": "fedmpi.methods.models.cifar10net:cifar10net",
    "pfl-cnn": "fedmpi.methods.models.pfl_cnn:pfl_cnn",
    "torchvision": "fedmpi.methods.models.zoo:torchvision",
}
DEVICES = {
    "none": "fedmpi.methods.devices.none:none",
    "constant": "fedmpi.methods.devices.constant:constant",
    "drawn": "fedmpi.methods.devices.drawn:drawn",
    "tiers": "fedmpi.methods.devices.tiers:tiers",
    "trace": "fedmpi.methods.devices.trace:trace",
}
SAMPLERS = {
    "uniform": "fedmpi.methods.sampler.uniform:uniform",
    "size": "fedmpi.methods.sampler.size:size",
    "contribution": "fedmpi.methods.sampler.contribution:contribution",
    "power-of-choice": "fedmpi.methods.sampler.power_of_choice:power_of_choice",
}
AGGREGATIONS = {
    "sync": "fedmpi.methods.timing.sync:sync",
    "fedasync": "fedmpi.methods.timing.fedasync:fedasync",
    "fedbuff": "fedmpi.methods.timing.fedbuff:fedbuff",
}
OPTIMISERS = {
    "sgd": "fedmpi.methods.optimisers.sgd:sgd",
    "adam": "fedmpi.methods.optimisers.adam:adam",
    "adamw": "fedmpi.methods.optimisers.adamw:adamw",
}
SCHEDULES = {
    "constant": "fedmpi.methods.schedules.constant:constant",
    "step": "fedmpi.methods.schedules.step:step",
    "cosine": "fedmpi.methods.schedules.cosine:cosine",
    "linear": "fedmpi.methods.schedules.linear:linear",
}
AUGMENTATIONS = {
    "flip": "fedmpi.methods.augment.flip:flip",
    "crop": "fedmpi.methods.augment.crop:crop",
}
KINDS = {
    "strategy": STRATEGIES, "optimiser": OPTIMISERS, "schedule": SCHEDULES, "augment": AUGMENTATIONS, "pruner": PRUNERS,
    "contribution": CONTRIBUTIONS, "weighting": WEIGHTINGS, "codec": CODECS,
    "dataset": DATASETS, "partition": PARTITIONS, "noise": NOISES, "features": FEATURES, "fault": FAULTS,
    "model": MODELS, "devices": DEVICES, "sampler": SAMPLERS, "aggregation": AGGREGATIONS,
}


# What strategies once said of their clients' optimiser, and what it was by default.
OPTIMISER_BEFORE = {"momentum": "0.9", "weight_decay": "0.001"}
# what a factory is given besides its options
CALLED_WITH = {"model": ("shape", "classes"), "dataset": ("data_dir",)}


class Entry(NamedTuple):
    """A factory as its source declares it."""

    target: str
    signature: inspect.Signature
    options: dict                 # {name: inspect.Parameter} of what can be chosen
    line: str                     # first line of its docstring
    text: str                     # docstring of its module
    fields: dict                  # what its docstring says under FIELDS
    sources: tuple                # paths of the files that define it


FIELDS = ("Paper", "Up", "Down", "Example")     # its source; from and to clients on the wire; a command line


def resolve(table, name):
    """``"module:function"`` for a name of ``table`` or for any importable ``package.module:function``."""
    if name in table:
        return table[name]
    if ":" in name:
        return name
    hint = _hint(name, table)
    raise UserError(f"unknown name {name!r}{hint or '.'} Known: {', '.join(table)}, or package.module:function")


def nearest(name, known):
    """The one of the ``known`` names that ``name`` was probably meant to be; empty where none is close."""
    import difflib
    return next(iter(difflib.get_close_matches(name, known, n=1)), "")


def _hint(name, known):
    """``; did you mean ...?`` where a known name is close, else an empty text."""
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else ""


def _moved(table, text):
    """The way out for options of the clients' optimiser in a strategy's options ``text``, where they were once; empty
    where there are none, or for another kind of part."""
    moved = {key: default for key, default in OPTIMISER_BEFORE.items() if table is STRATEGIES}
    given = dict(item.partition("=")[::2] for item in _items(text))
    if not moved.keys() & given.keys():
        return ""
    values = ",".join(f"{key}={given.get(key, default)}" for key, default in moved.items())
    return f": that is the optimiser's, say --optimiser sgd:{values}."


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


def entry(table, name, importing=True):
    """The ``Entry`` of a name; UserError where there is no such module or factory. What the source
    does not show is imported, unless ``importing`` is False: then it has no options."""
    target = resolve(table, name)
    module, _, function = target.partition(":")
    spec = factories.find(module)
    own = "" if name in table else namesake(module)
    if own:
        taken = spec and spec.origin
        raise UserError(f"{name}: the module {module!r} is {taken}, not your file {own}, which has "
                        "the same name: rename your file")
    found = factories.declared(module, function, importing)
    if spec is None:
        meant = f" Or an option of {module}? {module}:option=value" * (module in table)
        raise UserError(f"no module {module!r} to take {function!r} from; is it installed or on PYTHONPATH?{meant}")
    if found is None:
        where = f"module {module!r} ({spec.origin})"
        raise UserError(f"{where} defines no function or class {function!r}")
    _check_arguments(table, name, found.signature)
    options, line = _options(table, found.signature), found.doc.partition("\n")[0]
    return Entry(target, found.signature, options, line, found.text, _fields(found.doc),
                 found.sources)


def kind_of(table):
    """The kind of parts that a table holds; empty for a table that is none of the catalogue's."""
    return next((kind for kind, each in KINDS.items() if each is table), "")


def is_own(table, name):
    """Whether a name is that of a factory of the user's, not one of the catalogue's."""
    return name not in table


def _options(table, signature):
    """The parameters that have a default, but for those that fedmpi gives."""
    num_given = len(CALLED_WITH.get(kind_of(table), ()))
    return {each.name: each for each in list(signature.parameters.values())[num_given:]
            if each.default is not inspect.Parameter.empty}


def _check_arguments(table, name, signature):
    """UserError for a factory that cannot be called with what fedmpi gives it."""
    given = CALLED_WITH.get(kind_of(table), ())
    try:
        signature.bind(*given)
    except TypeError as error:
        called = f"with {' and '.join(given)}" if given else "without arguments"
        why = f"{error}; an option needs a default"
        raise UserError(f"{name} cannot be called {called}: {why}") from None


def _fields(doc):
    """``{field: text}`` of the lines ``Field: text`` of a docstring and the indented ones that follow each."""
    found = re.findall(rf"^({'|'.join(FIELDS)}): (.*(?:\n +\S.*)*)", doc, re.M)
    return {name: " ".join(text.split()).removesuffix(".") for name, text in found}


def parse(table, spec):
    """``(target, options)``: names and values checked against the factory's source; nothing is built."""
    name, text = split(spec)
    found = entry(table, name)
    known, options = found.options, {}
    for item in filter(None, _items(text)):
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals:
            raise UserError(f"in {spec!r}: expected option=value, got {item!r}; a comma inside a value is written \\,")
        if key not in known:
            hint = _moved(table, text) or _hint(key, known)
            takes = ", ".join(f"{p.name}={p.default}" for p in known.values()) or "no options"
            raise UserError(f"{name} has no option {key!r}{hint or '.'} It takes ({takes})")
        if key in options:
            raise UserError(f"in {spec!r}: {key} is given twice")
        options[key] = _convert(spec, known[key], value.strip())
    return found.target, options


def wanted(parameter):
    """What an option can be, in words: its choices, or its type; empty where no text says that."""
    kinds = _types(parameter)
    words = [str(each) for each in choices(parameter)]
    words += [WANTED[each] for each in WANTED if each in kinds]
    return ", ".join(words[:-1]) + " or " * (len(words) > 1) + words[-1] if words else ""


WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text",
          type(None): "none"}


def choices(parameter):
    """The values that an option can have, where they are a fixed few; else an empty tuple."""
    literals = [each for each in _types(parameter) if typing.get_origin(each) is typing.Literal]
    return tuple(choice for each in literals for choice in typing.get_args(each))


def _types(parameter):
    """The types that an option's value can have: as declared, or that of its default."""
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        usual = parameter.default
        simple = [each for each in (bool, int, float, str) if isinstance(usual, each)]
        return (str,) if usual is None else (*simple[:1], type(usual))[:1]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _convert(spec, parameter, text):
    """The option's value in its declared type, or in that of its default."""
    kinds = _types(parameter)
    known = {str(choice): choice for choice in choices(parameter)}
    if text in known:
        return known[text]
    plain = [each for each in WANTED if each in kinds]
    # text comes last, since it takes anything
    for kind in sorted(plain, key=lambda each: each is str):
        try:
            return _value(kind, text)
        except (ValueError, KeyError):
            continue
    if not wanted(parameter):
        raise UserError(f"{spec}: {parameter.name} is of type {kinds[0].__name__}, which cannot be "
                        "written on a command line: name a factory of your own that sets it")
    shown = spec.replace("\n", "\\n")             # a message is one line, whatever is in the spec
    raise UserError(f"{shown}: {parameter.name} must be {wanted(parameter)}, got "
                    f"{text!r}{_hint(text, known)}")


def _value(kind, text):
    """``text`` as a value of ``kind``; ValueError or KeyError where it is none."""
    if kind is type(None):
        return {"none": None}[text.lower()]
    return WORDS[text.lower()] if kind is bool else kind(text)


def settings(table, spec):
    """``{option: value}`` of all options of a part, those that ``spec`` does not name as they are by
    default."""
    named, known = parse(table, spec)[1], entry(table, split(spec)[0]).options
    return {key: named.get(key, each.default) for key, each in known.items()}


def load(table, name):
    """The factory itself, imported."""
    module, _, function = resolve(table, name).partition(":")
    return factories.load(module, function)


def make(table, spec, *arguments):
    """The part that ``spec`` names: its factory called with ``arguments`` and the options. A part of
    the user's is held to its kind's contract, now and whenever it is asked something."""
    target, options = parse(table, spec)
    factory = load({}, target)
    if not is_own(table, split(spec)[0]):
        try:
            return factory(*arguments, **options)
        except ValueError as error:
            raise UserError(f"{spec}: {error}") from error
    try:
        with factories.own_code(spec, passing=(ValueError,)):
            made = factory(*arguments, **options)
    except ValueError as error:
        raise UserError(f"{spec}: {error}") from error
    from fedmpi.plugins.contract import bound
    return bound(kind_of(table), made, f"--{kind_of(table)} {spec}")
