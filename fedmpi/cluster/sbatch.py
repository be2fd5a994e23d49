"""A batch script for Slurm, from the options of a run: it stops in time, queues itself again and goes on.

What is told beforehand is estimated without torch, unless a measurement is at hand or GPUs are asked for.
"""

import math
import os
import re
import shlex
from collections import Counter
from typing import NamedTuple

from fedmpi.build import footprint
from fedmpi.transport import place
from fedmpi.catalog import AGGREGATIONS
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
    """Of a time as Slurm writes it: minutes[:seconds], hours:minutes:seconds, days-hours[:minutes[:seconds]]."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not found:
        raise UserError(f"--time must be minutes, hours:minutes:seconds or days-hours, got {text!r}")
    days, *parts = found.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is None and len(numbers) < 3:
        numbers = [0, *numbers]                              # a single number is minutes, two are minutes and seconds
    return sum(number * unit for number, unit in zip([int(days or 0), *numbers], (86400, 3600, 60, 1)))


def size(text):
    """Bytes of a size as Slurm writes it: megabytes where no unit is given."""
    found = re.fullmatch(r"(\d+)([KMGT]?)", text.upper())
    if not found:
        raise UserError(f"--memory must be a size such as 8G, got {text!r}")
    return int(found[1]) * UNITS[found[2] or "M"]


def on_node(job):
    """Ranks of the fullest node."""
    return math.ceil(job.ranks / job.nodes)


def cohort(options):
    """Clients that train at the same time: all that a round asks, or at work where aggregation is asynchronous."""
    given = parse(AGGREGATIONS, options["aggregation"])[1]
    wanted = options["cohort"] or options["clients"]
    return given.get("concurrency", 0) or min(options["clients"], math.ceil(wanted * (1 + given.get("over", 0))))


def node_bytes(job, options, measured=None):
    """What the fullest node needs: ranks that all hold the model, data once, and the cohort's updates on rank 0."""
    weights = 4 * WEIGHTS.get(split(options["model"])[0], 0)
    each = measured.rank_bytes if measured else (GPU_RANK_BYTES if job.gpus else RANK_BYTES) + VECTORS * weights
    return on_node(job) * each + 3 * DATA_BYTES.get(split(options["dataset"])[0], 0) + 2 * cohort(options) * weights


def gigabytes(number):
    """Whole ones, rounded up, as ``--mem`` takes them."""
    return f"{math.ceil(number / 1e9)}G"


def program(launcher):
    """``srun`` or ``mpirun``, by which ``--launcher`` begins; UserError for what a number of ranks cannot follow."""
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
    named = [name for name in ("venv", "conda", "container") if getattr(job, name)]
    given = notice(job.signal)[1]
    mpirun = program(job.launcher) == "mpirun"
    kind, waits = split(options["aggregation"])[0], parse(AGGREGATIONS, options["aggregation"])[1]
    needed = gigabytes(node_bytes(job, options, measured))
    refused = {
        f"--nodes {job.nodes} need as many ranks at least, got --ranks {job.ranks}": job.ranks < job.nodes,
        f"--cohort {options['cohort']} of {options['clients']} clients": options["cohort"] > options["clients"],
        "--device cuda needs --gpus": options["device"] == "cuda" and not job.gpus,
        f"--aggregation {options['aggregation']} needs a model of time: --devices drawn, say":
            options["devices"] == "none" and (kind != "sync" or any(waits.values())),
        f"--gpus {job.gpus} a node for {on_node(job)} ranks there: some would lie idle": job.gpus > on_node(job),
        "text options must be of one line": _lines_apart([*job, *options.values()]),
        "--server-device cuda needs --gpus": options["server_device"] == "cuda" and not job.gpus,
        f"--gpus {job.gpus} would lie idle with --device cpu": options["device"] == "cpu" and job.gpus > 0,
        f"take one of --{' and --'.join(named)}": len(named) > 1,
        f"mpirun passes on USR1 only, got --signal {job.signal}":
            mpirun and notice(job.signal)[0] != notice("USR1")[0],
        f"--time {job.time} is no longer than the notice of --signal {job.signal}": seconds(job.time) <= given,
        f"--memory {job.memory} a node is too little: {on_node(job)} ranks there need about {needed}":
            job.memory not in ("", "0") and size(job.memory) < node_bytes(job, options, measured),
    }
    for line, wrong in refused.items():
        if wrong:
            raise UserError(line)
    _check_mail(job)
    for name in ("job_name", "qos", "constraint", "mail_user", "log", "account", "queue"):
        _check_quotes(f"--{name.replace('_', '-')}", getattr(job, name) or "")
    for each in job.sbatch:
        _check_other(each)


def _lines_apart(values):
    """Whether any of the texts, or of the texts in lists, could begin a line of its own in a script."""
    flat = [text for value in values for text in (value if isinstance(value, (list, tuple)) else [value])]
    return any(re.search("[\n\r\v\f\0\x85\u2028\u2029]", str(text)) for text in flat)


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
    workers, clients = max(job.ranks - 1, 1), cohort(options)
    yield (f"{job.ranks} rank{'s' * (job.ranks > 1)} on {job.nodes} node{'s' * (job.nodes > 1)}; {workers} "
           f"worker{'s' * (workers > 1)} train {clients} clients a round, {math.ceil(clients / workers)} each at most"
           + (f"; {workers - clients} will lie idle" if workers > clients else ""))
    yield f"{job.gpus} GPU{'s' * (job.gpus > 1)} a node, shared by {on_node(job)} ranks there" if job.gpus else "no GPU"
    unknown = [f"--{kind} {options[kind]}" for kind, table in (("model", WEIGHTS), ("dataset", DATA_BYTES))
               if split(options[kind])[0] not in table]
    need = node_bytes(job, options, measured)
    yield (f"about {need / job.ranks * job.nodes / 1e9:.1f} GB a rank and {need / 1e9:.1f} GB a node"
           + (", measured" if measured else ", estimated" + f" without {' and '.join(unknown)}" * bool(unknown))
           + f"; asks for {job.memory or gigabytes(need)} a node")
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


def on_gpus(job, options):
    """What the fullest GPU will need, by the data and the model themselves; where the data are not here, that."""
    from fedmpi.build.needs import planned_needs
    try:
        worker, server = planned_needs(options)
    except DataError as error:
        return f"GPU memory: not estimated here, without the data: {error}"
    need, workers, served = max((workers * worker.total + served * server.total, workers, served) for workers, served in
                                gpu_loads(job, options["server_device"] != "cpu"))
    return (f"about {need / 1e9:.2g} GB of the fullest GPU, for {footprint.users(workers, served)} on it, estimated; a "
            f"worker takes {footprint.told(worker)}")


def gpu_loads(job, served):
    """``[(workers, whether the server is there)]`` for the GPUs of the first node and, where there are more nodes, of
    one that the server is not on; ``served`` where it takes a GPU at all."""
    G, ranks = job.gpus, on_node(job)
    nodes = [(ranks - (job.ranks > 1), served), (ranks, False)][: job.nodes]
    dealt = [(Counter(place.gpu_index(local, G) for local in range(workers)), there) for workers, there in nodes]
    return [(count[gpu], there and gpu == place.gpu_index(place.SERVER, G))
            for count, there in dealt for gpu in range(G)]


def fitting(job, options, measured):
    """How many rounds fit the wall time, by a measurement in one process."""
    workers, clients = max(job.ranks - 1, 1), cohort(options)
    each = measured.round_s - measured.shared_s * (1 - math.ceil(clients / workers) / clients)
    room = int(max(0, seconds(job.time) - notice(job.signal)[1] - 60) / each)
    fit = f"all {options['rounds']}" if room >= options["rounds"] else f"{room} of {options['rounds']}"
    return (f"a round took {measured.round_s:.2g} s in one process here, about {each:.2g} s on {job.ranks} ranks of "
            f"that speed: {fit} rounds fit {job.time}")


def script(job, options, arguments, command, measured=None):
    """The text of the batch script that runs ``fedmpi train`` with ``arguments``, made by ``command``."""
    what = WHAT.format(run=shlex.quote(options["out"]), train=_train(job, arguments))
    return _script(job, "fedmpi", {}, what, command, node_bytes(job, options, measured), "")


def array_script(job, needs, names, todo, at_once, folder, command):
    """The text of the batch script for an array job whose task N plays the run ``names[N]`` of the ``folder``, by the
    options beside it; ``todo`` are the tasks to start, ``at_once`` of them at a time (0: all), ``needs`` bytes a
    node."""
    what = WHAT_OF_MANY.format(folder=shlex.quote(folder), names="\n".join(f"    {shlex.quote(n)}" for n in names),
                               train=_train(job, []))
    asked = {"array": place.ranges(todo) + f"%{at_once}" * (at_once > 0)}
    return _script(job, "fedmpi-sweep", asked, what, command, needs, " --array=$SLURM_ARRAY_TASK_ID")


def _train(job, arguments):
    inside = f"apptainer exec {'--nv ' * (job.gpus > 0)}{shlex.quote(job.container)} " if job.container else ""
    return inside + shlex.join(["fedmpi", "train", *arguments])


def _script(job, name, asked, what, command, needs, again):
    srun = program(job.launcher) == "srun"
    # A rank that a signal kills before MPI is up leaves the others of srun waiting for ever; mpirun ends them itself.
    launcher = f"{job.launcher} --kill-on-bad-exit=1" if srun else f"{job.launcher} -n {job.ranks}"
    signal, seconds_left = job.signal.partition("@")[0], notice(job.signal)[1]
    asked = {"job-name": job.job_name or name, **asked, "nodes": job.nodes, "ntasks": job.ranks,
             "cpus-per-task": job.cpus_per_task, "gpus-per-node": job.gpus or None,
             "mem": job.memory or gigabytes(needs), "time": job.time, "account": job.account, "partition": job.queue,
             "qos": job.qos, "constraint": job.constraint, "mail-user": job.mail_user, "mail-type": job.mail_type,
             "output": job.log}
    lines = [f"#SBATCH --{name}={_directive(value)}" for name, value in asked.items() if value is not None]
    lines += [f"#SBATCH {_other(each)}" for each in job.sbatch]
    prepare = [f"module load {job.modules}"] if job.modules else []
    prepare += [f". {shlex.quote(job.venv)}/bin/activate"] if job.venv else []
    prepare += ['eval "$(conda shell.bash hook)"', f"conda activate {shlex.quote(job.conda)}"] if job.conda else []
    if srun and job.cpus_per_task > 1:
        prepare.append(f"export SRUN_CPUS_PER_TASK={job.cpus_per_task}")       # since 22.05 srun does not ask the job
    gentle = "" if srun else GENTLE
    made_by = " ".join(shlex.join(command).splitlines())                       # a comment, which ends with its line
    return TEXT.format(
        command=made_by, asked="\n".join(lines), signal=signal, notice=f"{signal}@{seconds_left}",
        left=seconds_left, launcher=launcher, prepare="".join(line + "\n" for line in prepare), requeues=job.requeues,
        code=COME_BACK, what=what, again=again, gentle=gentle)


def _directive(value):
    """A value as a line of #SBATCH takes it: quoted where it has what ends a word or begins a comment there."""
    text = str(value)
    return f'"{text}"' if re.search(r"[\s#']", text) else text


def _other(text):
    """What --sbatch passes through, as the rest of a line of #SBATCH."""
    name, equals, value = text.removeprefix("--").partition("=")
    return f"--{name}{equals}{_directive(value) if equals else ''}"


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
