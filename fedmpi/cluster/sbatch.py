"""A job for Slurm: its demands on the cluster, its needs, and whether it can work.

The needs are estimated without torch, unless there is a measurement. ``fedmpi.cluster.script``
writes the batch script, ``fedmpi.cluster.foretell`` says how the job will run.
"""

import math
import re
import shlex
from typing import NamedTuple

from fedmpi.catalog import TIMINGS
from fedmpi.plugins.spec import parse, split
from fedmpi.core.errors import UserError
from fedmpi.build.footprint import GPU_RANK_BYTES, RANK_BYTES, vectors_of_ranks
from fedmpi.build.ranks import check_ranks
from fedmpi.core.stop import notice

# Of each model, on 32 x 32 colour images; of a GPT, on 65 different characters.
WEIGHTS = {
    "logistic": 31e3,
    "2nn": 660e3,
    "small-cnn": 87e3,
    "cnn": 880e3,
    "mcmahan-cnn": 2.2e6,
    "lenet5": 62e3,
    "mnistnet": 410e3,
    "cifar10net": 790e3,
    "pfl-cnn": 1.7e6,
    "torchvision": 11.2e6,
    "gpt": 0.81e6,
    "gpt2": 85.2e6,
    "vit": 0.81e6,
}
# Training and test sets of each data set, as they lie in memory.
DATA_BYTES = {
    "digits": 1e6,
    "synthetic": 1e6,
    "mnist": 55e6,
    "fashion-mnist": 55e6,
    "emnist": 640e6,
    "cifar10": 185e6,
    "cifar100": 185e6,
    "svhn": 305e6,
    "shakespeare": 1.2e6,
    "markov": 0.1e6,
    # 749,068 images of 28 x 28 float32.
    "tff-emnist": 2.35e9,
    "tff-cifar100": 185e6,
    # 4.2 million characters.
    "tff-shakespeare": 4.5e6,
}
# Room for the data on a node, in sizes of the data set: reading it makes copies.
DATA_COPIES = 3
WEIGHT_BYTES = 4
# The launcher's own options for the number of ranks.
COUNTS = {"srun": r"-n\d*|--ntasks(=.*)?", "mpirun": r"--?(np?|c|ntasks)(=.*)?"}
UNITS = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
MAILS = ("NONE", "BEGIN", "END", "FAIL", "REQUEUE", "ALL", "INVALID_DEPEND", "STAGE_OUT",
         "TIME_LIMIT", "TIME_LIMIT_90", "TIME_LIMIT_80", "TIME_LIMIT_50", "ARRAY_TASKS")
# Options of sbatch that our script sets already, and by which option of ours.
OWN = {
    "job-name": "--job-name",
    "array": "fedmpi sweep",
    "nodes": "--nodes",
    "ntasks": "--ranks",
    "cpus-per-task": "--cpus-per-task",
    "gpus-per-node": "--gpus",
    "mem": "--memory",
    "time": "--time",
    "account": "--account",
    "partition": "--queue",
    "qos": "--qos",
    "constraint": "--constraint",
    "mail-user": "--mail-user",
    "mail-type": "--mail-type",
    "output": "--log",
    "signal": "--signal",
    "requeue": "--requeues",
    "no-requeue": "--requeues 0",
    "open-mode": "nothing else than append",
    "wrap": "the script itself",
}
# Any character that begins a line somewhere: in a shell, or for Python's splitlines.
LINE_ENDS = re.compile("[\n\r\v\f\0\x85\u2028\u2029]")


class Job(NamedTuple):
    """The demands on the cluster."""

    nodes: int
    ranks: int
    # A node.
    gpus: int
    # A node, as Slurm writes it; empty: as estimated.
    memory: str
    # As Slurm writes it.
    time: str
    account: str | None
    # The cluster's partition.
    queue: str | None
    modules: str | None
    venv: str | None
    conda: str | None
    container: str | None
    launcher: str
    signal: str
    requeues: int
    job_name: str | None = None
    qos: str | None = None
    constraint: str | None = None
    mail_user: str | None = None
    mail_type: str | None = None
    # The path, with Slurm's patterns such as %j.
    log: str | None = None
    cpus_per_task: int = 1
    # Anything else, each NAME or NAME=VALUE.
    sbatch: tuple = ()


class Measured(NamedTuple):
    """A short run in one process."""

    round_s: float
    # The part of it that workers share.
    shared_s: float
    rank_bytes: float


def seconds(text):
    """The seconds of a time as Slurm writes it.

    That is minutes[:seconds], hours:minutes:seconds or days-hours[:minutes[:seconds]].

    >>> seconds("90"), seconds("01:30:00"), seconds("1-12")
    (5400, 5400, 129600)
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not match:
        raise UserError(f"--time must be minutes, hours:minutes:seconds or days-hours, got {text!r}")
    days, *parts = match.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is None and len(numbers) < 3:
        # A single number is minutes, two are minutes and seconds.
        numbers.insert(0, 0)
    # Parts left out at the end are zeros.
    hours, minutes, rest_s = [*numbers, 0, 0][:3]
    hours += 24 * int(days or 0)
    minutes += 60 * hours
    return rest_s + 60 * minutes


def size(text):
    """Bytes of a size as Slurm writes it: megabytes without a unit."""
    match = re.fullmatch(r"(\d+)([KMGT]?)", text.upper())
    if not match:
        raise UserError(f"--memory must be a size such as 8G, got {text!r}")
    number, letter = match.groups()
    unit = UNITS[letter or "M"]
    return int(number) * unit


def on_node(job):
    """Ranks of the fullest node."""
    return math.ceil(job.ranks / job.nodes)


def cohort(options):
    """Clients that train at the same time: those that a round asks, or those at work in
    asynchronous runs."""
    timing = parse(TIMINGS, options["timing"])[1]
    if timing.get("concurrency", 0):
        return timing["concurrency"]
    wanted = options["cohort"] or options["clients"]
    return min(options["clients"], math.ceil(wanted * (1 + timing.get("over", 0))))


def node_bytes(job, options, measured=None):
    """Bytes needed on the fullest node.

    The model on each rank, the data once, and the cohort's updates on rank 0. A model or a data set
    without a known size counts as nothing.
    """
    model, _ = split(options["model"])
    dataset, _ = split(options["dataset"])
    model_bytes = WEIGHT_BYTES * WEIGHTS.get(model, 0)
    data_bytes = DATA_COPIES * DATA_BYTES.get(dataset, 0)
    of_rank, of_node = vectors_of_ranks(WEIGHTS.get(model, 0))
    shared_bytes = of_node * model_bytes
    if measured:
        rank_bytes = measured.rank_bytes
    elif job.gpus:
        rank_bytes = GPU_RANK_BYTES + of_rank * model_bytes
    else:
        rank_bytes = RANK_BYTES + of_rank * model_bytes
    # An update as it arrives, and its row.
    update_bytes = 2 * cohort(options) * model_bytes
    return on_node(job) * rank_bytes + shared_bytes + data_bytes + update_bytes


def gigabytes(number):
    """Whole ones, rounded up, as ``--mem`` takes them."""
    return f"{math.ceil(number / 1e9)}G"


def program(launcher):
    """The first word of ``--launcher``, ``srun`` or ``mpirun``.

    UserError for another one, and for words behind which no number of ranks can stand.
    """
    try:
        words = shlex.split(launcher)
    except ValueError as error:
        raise UserError(f"--launcher {launcher}: {error}") from None
    if not words or words[0] not in COUNTS:
        raise UserError(f"--launcher must begin with srun or mpirun, got {launcher!r}")
    name, *more = words
    for word in more:
        if re.fullmatch(COUNTS[name], word):
            raise UserError(f"--launcher {launcher!r} must not say how many ranks, got {word}: "
                            "give --ranks, which it is told")
    return name


def check(job, options, measured=None):
    """UserError for a job that cannot work."""
    program(job.launcher)
    check_ranks(options, job.ranks)
    for line, is_wrong in _refusals(job, options, measured):
        if is_wrong:
            raise UserError(line)
    _check_mail(job)
    for name in ("job_name", "qos", "constraint", "mail_user", "log", "account", "queue"):
        flag = "--" + name.replace("_", "-")
        value = getattr(job, name) or ""
        _check_quotes(flag, value)
    for passed_on in job.sbatch:
        _check_other(passed_on)


def _refusals(job, options, measured):
    """(message, whether it holds) of everything that would make a job fail or idle."""
    device, server_device = options["device"], options["server_device"]
    yield f"--nodes {job.nodes} need as many ranks at least, got --ranks {job.ranks}", job.ranks < job.nodes
    yield f"--cohort {options['cohort']} of {options['clients']} clients", options["cohort"] > options["clients"]
    yield "--device cuda needs --gpus", device == "cuda" and not job.gpus
    yield (f"--timing {options['timing']} needs a model of time: --devices drawn, say",
           options["devices"] == "none" and _needs_time(options))
    yield f"--gpus {job.gpus} a node for {on_node(job)} ranks there: some would lie idle", job.gpus > on_node(job)
    yield "text options must be of one line", _lines_apart([*job, *options.values()])
    yield "--server-device cuda needs --gpus", server_device == "cuda" and not job.gpus
    yield f"--gpus {job.gpus} would lie idle with --device cpu", device == "cpu" and job.gpus > 0
    environments = [f"--{name}" for name in ("venv", "conda", "container") if getattr(job, name)]
    yield f"take one of {' and '.join(environments)}", len(environments) > 1
    yield from _refused_signals(job)
    need = node_bytes(job, options, measured)
    # Slurm's 0 asks for all memory of the node.
    has_limit = job.memory not in ("", "0")
    needs = f"{on_node(job)} ranks there need about {gigabytes(need)}"
    yield (f"--memory {job.memory} a node is too little: {needs}",
           has_limit and size(job.memory) < need)


def _refused_signals(job):
    """(message, whether it holds) for a signal that is lost, or comes at once."""
    number, notice_s = notice(job.signal)
    usr1, _ = notice("USR1")
    is_mpirun = program(job.launcher) == "mpirun"
    yield (f"mpirun passes on USR1 only, got --signal {job.signal}",
           is_mpirun and number != usr1)
    yield (f"--time {job.time} is no longer than the notice of --signal {job.signal}",
           seconds(job.time) <= notice_s)


def _needs_time(options):
    """Whether the run's timing waits for simulated seconds."""
    kind = split(options["timing"])[0]
    waits = parse(TIMINGS, options["timing"])[1]
    return kind != "sync" or any(waits.values())


def _lines_apart(values):
    """Whether any text, also in a list, could begin a line of its own in a script."""
    for value in values:
        texts = [value]
        if isinstance(value, (list, tuple)):
            texts = value
        for text in texts:
            if LINE_ENDS.search(str(text)):
                return True
    return False


def _check_mail(job):
    """UserError for mail that Slurm would not send."""
    if job.mail_type is not None:
        for kind in job.mail_type.upper().split(","):
            if kind not in MAILS:
                known = ", ".join(MAILS)
                raise UserError(f"--mail-type {job.mail_type}: there is no {kind or 'empty type'}; "
                                f"there are {known}")
    if job.mail_user and not job.mail_type:
        raise UserError("--mail-user has no effect without --mail-type: END,FAIL, say")


def _check_other(text):
    """UserError for a text that --sbatch cannot pass through."""
    name, _, value = text.removeprefix("--").partition("=")
    if not re.fullmatch("[a-z][a-z0-9-]+", name):
        raise UserError(f"--sbatch {text!r} must be NAME=VALUE, or NAME alone, "
                        "as sbatch has its long options")
    if name in OWN:
        raise UserError(f"--sbatch {name}: that is said by {OWN[name]} already")
    _check_quotes(f"--sbatch {name}", value)


def _check_quotes(option, value):
    """UserError for a value that a line of #SBATCH cannot quote."""
    if '"' in value or "\\" in value:
        raise UserError(f"{option} must have neither double quotes nor backslashes, got {value!r}")


def check_log_of_array(log):
    """UserError for a log that the tasks of an array would share."""
    if not log:
        return
    # Slurm writes %% as a percent sign.
    patterns = log.replace("%%", "")
    if not re.search(r"%\d*[aj]", patterns):
        raise UserError(f"--log {log}: all runs of the array would write into it; "
                        "put %a, the run's number, into it")
