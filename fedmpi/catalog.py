"""Every selectable name: a table a kind of part, a line a method.

A line names the method's factory, ``name -> "module:function"``, as a text: a listing imports
nothing. The factory's arguments with defaults are its options,
``name:option=value,option=value`` on the command line (``fedmpi.plugins.spec``). Any importable
``package.module:factory`` serves as well, without a line here.
"""

# --strategy: local training and the merge.
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
    "diloco": "fedmpi.methods.strategies.diloco:diloco",
    "fednova": "fedmpi.methods.strategies.fednova:fednova",
    "scaffold": "fedmpi.methods.strategies.scaffold:scaffold",
    "feddyn": "fedmpi.methods.strategies.feddyn:feddyn",
    "flora": "fedmpi.methods.strategies.flora:flora",
    "fedper": "fedmpi.methods.strategies.fedper:fedper",
    "fedbn": "fedmpi.methods.strategies.fedper:fedbn",
    "fedpcl": "fedmpi.methods.strategies.fedpcl:fedpcl",
    "fedgkt": "fedmpi.methods.strategies.fedgkt:fedgkt",
}
# --pruner: the mask of kept weights, round by round.
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
    "ranks": "fedmpi.methods.pruning.ranks:ranks",
}
# --contribution and --observe: a score for each client of a cohort.
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
# --weighting: from scores to weights in the merge.
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
# --codec: the values of a message.
CODECS = {
    "float32": "fedmpi.methods.codecs.float32:float32",
    "float16": "fedmpi.methods.codecs.float16:float16",
    "bfloat16": "fedmpi.methods.codecs.bfloat16:bfloat16",
    "int8": "fedmpi.methods.codecs.int8:int8",
    "sign": "fedmpi.methods.codecs.sign:sign",
    "topk": "fedmpi.methods.codecs.topk:topk",
}
# --dataset: samples and targets.
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
    "text": "fedmpi.methods.datasets.text:text",
    "shakespeare": "fedmpi.methods.datasets.shakespeare:shakespeare",
    "tokens": "fedmpi.methods.datasets.token_file:tokens",
    "markov": "fedmpi.methods.datasets.markov:markov",
    "leaf-femnist": "fedmpi.methods.datasets.leaf:leaf_femnist",
    "leaf-shakespeare": "fedmpi.methods.datasets.leaf:leaf_shakespeare",
    "tff-emnist": "fedmpi.methods.datasets.tff:tff_emnist",
    "tff-cifar100": "fedmpi.methods.datasets.tff:tff_cifar100",
    "tff-shakespeare": "fedmpi.methods.datasets.tff:tff_shakespeare",
    "parquet": "fedmpi.methods.datasets.parquet:parquet",
}
# --partition: the samples of each client.
PARTITIONS = {
    "iid": "fedmpi.methods.partition.iid:iid",
    "dirichlet": "fedmpi.methods.partition.dirichlet:dirichlet",
    "shards": "fedmpi.methods.partition.shards:shards",
    "classes": "fedmpi.methods.partition.classes:classes",
    "quantity": "fedmpi.methods.partition.quantity:quantity",
    "lognormal": "fedmpi.methods.partition.lognormal:lognormal",
    "natural": "fedmpi.methods.partition.natural:natural",
}
# --noise: wrong labels on clients.
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
# --features: inputs that differ between clients.
FEATURES = {
    "none": "fedmpi.methods.features.none:none",
    "gaussian": "fedmpi.methods.features.gaussian:gaussian",
    "rotation": "fedmpi.methods.features.rotation:rotation",
    "restyle": "fedmpi.methods.features.restyle:restyle",
}
# --fault: clients that copy, poison or cheat.
FAULTS = {
    "duplicate": "fedmpi.methods.fault.duplicate:duplicate",
    "label-flip": "fedmpi.methods.fault.label_flip:label_flip",
    "feature-noise": "fedmpi.methods.fault.feature_noise:feature_noise",
    "free-rider": "fedmpi.methods.fault.free_rider:free_rider",
    "scaled": "fedmpi.methods.fault.scaled:scaled",
    "sign-flip": "fedmpi.methods.fault.sign_flip:sign_flip",
    "shuffled": "fedmpi.methods.fault.shuffled:shuffled",
}
# --model: the network.
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
    "vit": "fedmpi.methods.models.vit:vit",
    "gpt": "fedmpi.methods.models.gpt:gpt",
    "gpt2": "fedmpi.methods.models.gpt2:gpt2",
    "torchvision": "fedmpi.methods.models.zoo:torchvision",
}
# --adapters: small matrices beside a frozen model.
ADAPTERS = {
    "none": "fedmpi.methods.adapters.none:none",
    "lora": "fedmpi.methods.adapters.lora:lora",
    "ffa-lora": "fedmpi.methods.adapters.lora:ffa_lora",
}
# --task: the loss and the metrics.
TASKS = {
    "classification": "fedmpi.methods.tasks.classification:classification",
    "regression": "fedmpi.methods.tasks.regression:regression",
    "multi-label": "fedmpi.methods.tasks.multi_label:multi_label",
    "lm": "fedmpi.methods.tasks.lm:lm",
}
# --devices: speeds, links and availability in virtual time.
DEVICES = {
    "none": "fedmpi.methods.devices.none:none",
    "constant": "fedmpi.methods.devices.constant:constant",
    "drawn": "fedmpi.methods.devices.drawn:drawn",
    "tiers": "fedmpi.methods.devices.tiers:tiers",
    "trace": "fedmpi.methods.devices.trace:trace",
}
# --sampler: the clients of a round.
SAMPLERS = {
    "uniform": "fedmpi.methods.sampler.uniform:uniform",
    "size": "fedmpi.methods.sampler.size:size",
    "contribution": "fedmpi.methods.sampler.contribution:contribution",
    "power-of-choice": "fedmpi.methods.sampler.power_of_choice:power_of_choice",
}
# --timing: the moment of a merge.
TIMINGS = {
    "sync": "fedmpi.methods.timing.sync:sync",
    "fedasync": "fedmpi.methods.timing.fedasync:fedasync",
    "fedbuff": "fedmpi.methods.timing.fedbuff:fedbuff",
}
# --optimiser: the step of local training.
OPTIMISERS = {
    "sgd": "fedmpi.methods.optimisers.sgd:sgd",
    "adam": "fedmpi.methods.optimisers.adam:adam",
    "adamw": "fedmpi.methods.optimisers.adamw:adamw",
}
# --schedule: the learning rate over rounds or steps.
SCHEDULES = {
    "constant": "fedmpi.methods.schedules.constant:constant",
    "step": "fedmpi.methods.schedules.step:step",
    "cosine": "fedmpi.methods.schedules.cosine:cosine",
    "linear": "fedmpi.methods.schedules.linear:linear",
}
# --augment: changes of training images.
AUGMENTATIONS = {
    "flip": "fedmpi.methods.augment.flip:flip",
    "crop": "fedmpi.methods.augment.crop:crop",
}
# Every kind of part, by the name of its option.
KINDS = {
    "strategy": STRATEGIES,
    "optimiser": OPTIMISERS,
    "schedule": SCHEDULES,
    "augment": AUGMENTATIONS,
    "pruner": PRUNERS,
    "contribution": CONTRIBUTIONS,
    "weighting": WEIGHTINGS,
    "codec": CODECS,
    "dataset": DATASETS,
    "partition": PARTITIONS,
    "noise": NOISES,
    "features": FEATURES,
    "fault": FAULTS,
    "model": MODELS,
    "adapters": ADAPTERS,
    "task": TASKS,
    "devices": DEVICES,
    "sampler": SAMPLERS,
    "timing": TIMINGS,
}
