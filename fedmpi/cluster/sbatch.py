"""A batch script for Slurm, from the options of a run: it stops in time, queues itself again and
goes on.

The needs of a job are estimated without torch, unless there is a measurement, or GPUs are asked
for.
"""

import math
import os
import re
import shlex
from collections import Counter
from typing import NamedTuple

from fedmpi.build import footprint
from fedmpi.transport import place
from fedmpi.catalog import TIMINGS
from fedmpi.plugins.spec import parse, split
from fedmpi.core.errors import DataError, UserError
from fedmpi.build.footprint import GPU_RANK_BYTES, RANK_BYTES, VECTORS
from fedmpi.core.stop import COME_BACK, notice

WEIGHTS = {"logistic": 31e3, "2nn": 660e3, "small-cnn": 87e3, "cnn": 880e3, "mcmahan-cnn": 2.2e6, "lenet5": 62e3,
           "mnistnet": 410e3, "cifar10net": 790e3, "pfl-cnn": 1.7e6, "torchvision": 11.2e6}  # on 32 x 32 colour images
DATA_BYTES = {"digits": 1e6, "synthetic": 1e6, "mnist": 55e6, "fashion-mnist": 55e6, "emnist": 640e6, "cifar10": 185e6,
              "cifar100": 185e6, "svhn": 305e6}              # as training and test sets lie in memory
COUNTS = {"srun": r"-n\d*|--ntasks(=.*)?", "mpirun": r"--?(np?|c|ntasks)(=.*)?"}     # what says how many ranks
UNITS = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
MAILS = ("NONE", "BEGIN", "END", "FAIL", "REQUEUE", "ALL", "INVALID_DEPEND", "STAGE_OUT", "TIME_LIMIT", "TIME_LIMIT_90",
         "TIME_LIMIT_80", "TIME_LIMIT_50", "ARRAY_TASKS")
OWN = {"job-name": "--job-name", "array": "fedmpi sweep", "nodes": "--nodes", "ntasks": "--ranks",
       "cpus-per-task": "--cpus-per-task", "gpus-per-node": "--gpus", "mem": "--memory", "time": "--time",
       "account": "--account", "partition": "--queue", "qos": "--qos", "constraint": "--constraint",
       "mail-user": "--mail-user", "mail-type": "--mail-type", "output": "--log", "signal": "--signal",
       "requeue": "--requeues", "no-requeue": "--requeues 0", "open-mode": "nothing else than append",
       "wrap": "the script itself"}                        # what a script of ours says already, and by what


class Job(NamedTuple):
    """What is asked of the cluster."""

    nodes: int
    ranks: int
    gpus: int                     # a node
    memory: str                   # a node, as Slurm writes it; empty: as estimated
    time: str                     # as Slurm writes it
    account: str | None
    queue: str | None             # the cluster's partition
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
    log: str | None = None        # the path, with Slurm's patterns such as %j
    cpus_per_task: int = 1
    sbatch: tuple = ()            # anything else, each NAME or NAME=VALUE


class Measured(NamedTuple):
    """A short run in one process."""

    round_s: float
    shared_s: float               # the part of it that workers share
    rank_bytes: float


def seconds(text):
    """Of a time as Slurm writes it: minutes[:seconds], hours:minutes:seconds,
    days-hours[:minutes[:seconds]]."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not match:
        raise UserError(f"--time must be minutes, hours:minutes:seconds or days-hours, got {text!r}")
    days, *parts = match.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is None and len(numbers) < 3:
        # A single number is minutes, two are minutes and seconds.
        numbers.insert(0, 0)
    numbers.insert(0, int(days or 0))
    return sum(number * unit for number, unit in zip(numbers, (86400, 3600, 60, 1)))


def size(text):
    """Bytes of a size as Slurm writes it: megabytes without a unit."""
    match = re.fullmatch(r"(\d+)([KMGT]?)", text.upper())
    if not match:
        raise UserError(f"--memory must be a size such as 8G, got {text!r}")
    number, unit = match.groups()
    return int(number) * UNITS[unit or "M"]


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
    """Bytes that the fullest node needs: the model on each rank, the data once, and the cohort's
    updates on rank 0."""
    weight_bytes = 4 * WEIGHTS.get(split(options["model"])[0], 0)
    data_bytes = 3 * DATA_BYTES.get(split(options["dataset"])[0], 0)
    if measured:
        rank_bytes = measured.rank_bytes
    elif job.gpus:
        rank_bytes = GPU_RANK_BYTES + VECTORS * weight_bytes
    else:
        rank_bytes = RANK_BYTES + VECTORS * weight_bytes
    return on_node(job) * rank_bytes + data_bytes + 2 * cohort(options) * weight_bytes


def gigabytes(number):
    """Whole ones, rounded up, as ``--mem`` takes them."""
    return f"{math.ceil(number / 1e9)}G"


def program(launcher):
    """``srun`` or ``mpirun``, by which ``--launcher`` begins; UserError for what a number of ranks
    cannot follow."""
    try:
        words = shlex.split(launcher)
    except ValueError as error:
        raise UserError(f"--launcher {launcher}: {error}") from None
    if not words or words[0] not in COUNTS:
        raise UserError(f"--launcher must begin with srun or mpirun, got {launcher!r}")
    counts = [word for word in words[1:] if re.fullmatch(COUNTS[words[0]], word)]
    if counts:
        raise UserError(f"--launcher {launcher!r} must not say how many ranks, got {counts[0]}: give --ranks, which it "
                        "is told")
    return words[0]


def check(job, options, measured=None):
    """UserError for a job that cannot work."""
    program(job.launcher)
    for line, is_wrong in _refusals(job, options, measured):
        if is_wrong:
            raise UserError(line)
    _check_mail(job)
    for name in ("job_name", "qos", "constraint", "mail_user", "log", "account", "queue"):
        _check_quotes(f"--{name.replace('_', '-')}", getattr(job, name) or "")
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
    environments = [name for name in ("venv", "conda", "container") if getattr(job, name)]
    yield f"take one of --{' and --'.join(environments)}", len(environments) > 1
    number, notice_s = notice(job.signal)
    is_lost = program(job.launcher) == "mpirun" and number != notice("USR1")[0]
    yield f"mpirun passes on USR1 only, got --signal {job.signal}", is_lost
    yield f"--time {job.time} is no longer than the notice of --signal {job.signal}", seconds(job.time) <= notice_s
    need = node_bytes(job, options, measured)
    yield (f"--memory {job.memory} a node is too little: {on_node(job)} ranks there need about {gigabytes(need)}",
           job.memory not in ("", "0") and size(job.memory) < need)


def _needs_time(options):
    """Whether the run's timing waits for simulated seconds."""
    kind = split(options["timing"])[0]
    waits = parse(TIMINGS, options["timing"])[1]
    return kind != "sync" or any(waits.values())


def _lines_apart(values):
    """Whether any text, also in a list, could begin a line of its own in a script."""
    for value in values:
        texts = value if isinstance(value, (list, tuple)) else [value]
        if any(re.search("[\n\r\v\f\0\x85\u2028\u2029]", str(text)) for text in texts):
            return True
    return False


def _check_mail(job):
    """UserError for mail that Slurm would not send."""
    kinds = (job.mail_type or "").upper().split(",")
    unknown = [kind for kind in kinds if kind not in MAILS]
    if job.mail_type is not None and unknown:
        raise UserError(f"--mail-type {job.mail_type}: there is no {unknown[0] or 'empty type'}; there are "
                        f"{', '.join(MAILS)}")
    if job.mail_user and not job.mail_type:
        raise UserError("--mail-user has no effect without --mail-type: END,FAIL, say")


def _check_other(text):
    """UserError for what --sbatch cannot pass through."""
    name, _, value = text.removeprefix("--").partition("=")
    if not re.fullmatch("[a-z][a-z0-9-]+", name):
        raise UserError(f"--sbatch {text!r} must be NAME=VALUE, or NAME alone, as sbatch has its long options")
    if name in OWN:
        raise UserError(f"--sbatch {name}: that is said by {OWN[name]} already")
    _check_quotes(f"--sbatch {name}", value)


def _check_quotes(option, value):
    """UserError for a value that a line of #SBATCH cannot quote."""
    if '"' in value or "\\" in value:
        raise UserError(f"{option} must have neither double quotes nor backslashes, got {value!r}")


def check_log_of_array(log):
    """UserError for a log that the tasks of an array would share."""
    if log and not re.search(r"%\d*[aj]", log.replace("%%", "")):
        raise UserError(f"--log {log}: all runs of the array would write into it; put %a, the run's number, into it")


def told(job, options, measured=None):
    """Lines that say what the job will do."""
    yield _ranks_text(job, cohort(options))
    if job.gpus:
        yield f"{job.gpus} GPU{_s(job.gpus)} a node, shared by {on_node(job)} ranks there"
    else:
        yield "no GPU"
    yield _memory_text(job, options, measured)
    if job.gpus:
        yield on_gpus(job, options)
    if job.cpus_per_task > 1:
        yield (f"{job.cpus_per_task} CPUs a rank, each of which trains on one thread: they bring memory or room, not "
               "speed")
    folder = os.path.dirname(job.log or "")
    if "%" not in folder and not os.path.isdir(folder or "."):
        yield f"warning: there is no folder {folder} here for the log, and Slurm makes none: mkdir -p {folder} first"
    if measured:
        yield fitting(job, options, measured)
    yield (f"{job.signal} asks it to stop in time; it queues itself again at most {job.requeues} times, and resumes "
           f"{options['out']}")


def _s(number):
    """The end of a noun behind ``number``."""
    return "s" if number > 1 else ""


def _ranks_text(job, clients):
    workers = max(job.ranks - 1, 1)
    text = (f"{job.ranks} rank{_s(job.ranks)} on {job.nodes} node{_s(job.nodes)}; {workers} "
            f"worker{_s(workers)} train {clients} clients a round, {math.ceil(clients / workers)} each at most")
    if workers > clients:
        text += f"; {workers - clients} will lie idle"
    return text


def _memory_text(job, options, measured):
    need = node_bytes(job, options, measured)
    rank_need = need / job.ranks * job.nodes
    source = "measured" if measured else f"estimated{_without(options)}"
    return (f"about {rank_need / 1e9:.1f} GB a rank and {need / 1e9:.1f} GB a node, {source}; "
            f"asks for {job.memory or gigabytes(need)} a node")


def _without(options):
    """The model and the data set that the estimate does not know, in words."""
    unknown = []
    for kind, table in (("model", WEIGHTS), ("dataset", DATA_BYTES)):
        if split(options[kind])[0] not in table:
            unknown.append(f"--{kind} {options[kind]}")
    if not unknown:
        return ""
    return f" without {' and '.join(unknown)}"


def on_gpus(job, options):
    """The needs of the fullest GPU, by the data and the model themselves; without the data, a line
    that says so."""
    from fedmpi.build.needs import planned_needs
    try:
        worker, server = planned_needs(options)
    except DataError as error:
        return f"GPU memory: not estimated here, without the data: {error}"
    loads = gpu_loads(job, options["server_device"] != "cpu")
    needs = [(workers * worker.total + served * server.total, workers, served) for workers, served in loads]
    need, workers, served = max(needs)
    return (f"about {need / 1e9:.2g} GB of the fullest GPU, for {footprint.users(workers, served)} on it, estimated; a "
            f"worker takes {footprint.told(worker)}")


def gpu_loads(job, served):
    """``[(workers, whether the server is there)]`` of the GPUs of the first node and, if there are
    more nodes, of one without the server. ``served``: whether the server takes a GPU at all."""
    G, ranks = job.gpus, on_node(job)
    nodes = [(ranks - (job.ranks > 1), served), (ranks, False)]
    server_gpu = place.gpu_index(place.SERVER, G)
    loads = []
    for workers, is_first in nodes[: job.nodes]:
        count = Counter(place.gpu_index(local, G) for local in range(workers))
        loads += [(count[gpu], is_first and gpu == server_gpu) for gpu in range(G)]
    return loads


def fitting(job, options, measured):
    """How many rounds fit the wall time, by a measurement in one process."""
    workers, clients = max(job.ranks - 1, 1), cohort(options)
    share = math.ceil(clients / workers) / clients
    round_s = measured.round_s - measured.shared_s * (1 - share)
    # A minute for the start, and the notice for the end.
    left_s = max(0, seconds(job.time) - notice(job.signal)[1] - 60)
    room, rounds = int(left_s / round_s), options["rounds"]
    fit = f"all {rounds}" if room >= rounds else f"{room} of {rounds}"
    return (f"a round took {measured.round_s:.2g} s in one process here, about {round_s:.2g} s on {job.ranks} ranks of "
            f"that speed: {fit} rounds fit {job.time}")


def script(job, options, arguments, command, measured=None):
    """The text of the batch script that runs ``fedmpi train`` with ``arguments``, made by
    ``command``."""
    what = WHAT.format(run=shlex.quote(options["out"]), train=_train(job, arguments))
    return _script(job, "fedmpi", {}, what, command, node_bytes(job, options, measured), "")


def array_script(job, needs, names, todo, at_once, folder, command):
    """The text of the batch script for an array job: task N plays the run ``names[N]`` of the
    ``folder``, by the options beside it.

    ``todo`` are the tasks to start, ``at_once`` of them at a time (0: all), ``needs`` bytes a
    node."""
    quoted = "\n".join(f"    {shlex.quote(name)}" for name in names)
    what = WHAT_OF_MANY.format(folder=shlex.quote(folder), names=quoted, train=_train(job, []))
    tasks = place.ranges(todo)
    if at_once > 0:
        tasks += f"%{at_once}"
    return _script(job, "fedmpi-sweep", {"array": tasks}, what, command, needs, " --array=$SLURM_ARRAY_TASK_ID")


def _train(job, arguments):
    """The words of the command of a rank."""
    train = shlex.join(["fedmpi", "train", *arguments])
    if not job.container:
        return train
    gpus = "--nv " if job.gpus > 0 else ""
    return f"apptainer exec {gpus}{shlex.quote(job.container)} {train}"


def _script(job, name, asked, what, command, needs, again):
    is_srun = program(job.launcher) == "srun"
    # A rank that a signal kills before MPI is up leaves the others of srun waiting for ever; mpirun ends them itself.
    launcher = f"{job.launcher} --kill-on-bad-exit=1" if is_srun else f"{job.launcher} -n {job.ranks}"
    signal, notice_s = job.signal.partition("@")[0], notice(job.signal)[1]
    # A comment ends with its line.
    made_by = " ".join(shlex.join(command).splitlines())
    return TEXT.format(
        command=made_by,
        asked="\n".join(_directives(job, name, asked, needs)),
        signal=signal,
        notice=f"{signal}@{notice_s}",
        left=notice_s,
        launcher=launcher,
        prepare="".join(f"{line}\n" for line in _preparation(job, is_srun)),
        requeues=job.requeues,
        code=COME_BACK,
        what=what,
        again=again,
        gentle="" if is_srun else GENTLE)


def _directives(job, name, more, needs):
    """The lines of #SBATCH."""
    asked = {
        "job-name": job.job_name or name,
        **more,
        "nodes": job.nodes,
        "ntasks": job.ranks,
        "cpus-per-task": job.cpus_per_task,
        "gpus-per-node": job.gpus or None,
        "mem": job.memory or gigabytes(needs),
        "time": job.time,
        "account": job.account,
        "partition": job.queue,
        "qos": job.qos,
        "constraint": job.constraint,
        "mail-user": job.mail_user,
        "mail-type": job.mail_type,
        "output": job.log,
    }
    lines = [f"#SBATCH --{key}={_directive(value)}" for key, value in asked.items() if value is not None]
    return lines + [f"#SBATCH {_other(passed_on)}" for passed_on in job.sbatch]


def _preparation(job, is_srun):
    """The lines that make ``fedmpi`` available on a node."""
    if job.modules:
        yield f"module load {job.modules}"
    if job.venv:
        yield f". {shlex.quote(job.venv)}/bin/activate"
    if job.conda:
        yield 'eval "$(conda shell.bash hook)"'
        yield f"conda activate {shlex.quote(job.conda)}"
    if is_srun and job.cpus_per_task > 1:
        # Since Slurm 22.05 srun does not ask the job.
        yield f"export SRUN_CPUS_PER_TASK={job.cpus_per_task}"


def _directive(value):
    """A value for a line of #SBATCH: in quotes if it has a blank or a character that begins a
    comment there."""
    text = str(value)
    if re.search(r"[\s#']", text):
        return f'"{text}"'
    return text


def _other(text):
    """An option of --sbatch as the rest of a line of #SBATCH."""
    name, equals, value = text.removeprefix("--").partition("=")
    if not equals:
        return f"--{name}"
    return f"--{name}={_directive(value)}"


WHAT = """\
run={run}
train=({train})"""
WHAT_OF_MANY = """\
folder={folder}
names=(
{names}
)
name=${{names[$SLURM_ARRAY_TASK_ID]}}
run=$folder/$name.h5
train=({train} --config "$folder/$name.toml")"""

GENTLE = """\
mpirun --version 2> /dev/null | grep -q -E "Open(RTE| MPI)" && term=USR1     # a second after SIGTERM it kills its ranks
"""

TEXT = """\
#!/bin/bash
# A run of fedmpi that stops in time, queues itself again and goes on to the same bits: sbatch THIS_FILE.
# Made by: fedmpi {command}
{asked}
#SBATCH --signal=B:{notice}        # to this script, {left} s before the time is over
#SBATCH --requeue                    # also after a node has failed
#SBATCH --open-mode=append           # one log for all starts

pid= asked= cancelled= term=TERM
tell() {{ (while kill -{signal} $pid; do sleep 10; done) 2> /dev/null & }}     # one that starts may lose a signal
trap 'heard=yes; asked=yes; [ -z "$pid" ] || tell' {signal}
trap 'heard=yes; cancelled=yes; [ -z "$pid" ] || kill -$term $pid' TERM    # scancel: ends as well, does not come back

{prepare}export OMP_NUM_THREADS=1 FEDMPI_SIGNAL={notice}
{what}
requeues={requeues}
{gentle}
mkdir -p -- "$(dirname -- "$run")"
if [ -e "$run" ]; then train+=(--resume "$run"); else train+=(--out "$run"); fi

{launcher} "${{train[@]}}" &
pid=$!
[ -z "$asked" ] || tell
[ -z "$cancelled" ] || kill -$term $pid
until heard=; wait $pid; code=$?; [ -z "$heard" ]; do :; done   # a signal ends wait before the run has ended

# Code {code} says: come back. So does a rank that gets the signal too early to heed it, and dies of it.
if [ -n "$cancelled" ] || [ $code = 0 ] || {{ [ $code != {code} ] && [ -z "$asked" ]; }}; then exit $code; fi
again=$((${{SLURM_RESTART_COUNT:-0}} + ${{FEDMPI_REQUEUES:-0}} + 1))
if [ $again -gt $requeues ]; then
    echo "not queued again: $requeues times are over; sbatch this script to go on"
    exit {code}
fi
echo "queued again, $again of $requeues"
scontrol requeue "$SLURM_JOB_ID" ||  # where a cluster does not let jobs do that, another job follows
    SLURM_RESTART_COUNT= FEDMPI_REQUEUES=$again sbatch{again} --dependency=afterany:"$SLURM_JOB_ID" "$0"
"""
