"""The text of a batch script for Slurm: it stops in time, queues itself again and goes on."""

import re
import shlex

from fedmpi.cluster.sbatch import gigabytes, node_bytes, program
from fedmpi.core.stop import COME_BACK, notice
from fedmpi.transport import place


def script(job, options, arguments, command, measured=None):
    """The text of the batch script for one run.

    It runs ``fedmpi train`` with ``arguments``, and names the ``command`` behind it.
    """
    run = shlex.quote(options["out"])
    train = _train(job, arguments)
    play = PLAY_ONE.format(run=run, train=train)
    needs = node_bytes(job, options, measured)
    return _script(job, "fedmpi", {}, play, command, needs, "")


def array_script(job, needs, names, todo, at_once, folder, command):
    """The text of the batch script for an array job.

    Its task N plays the run ``names[N]`` of the ``folder``, by the options beside it. ``todo`` are
    the tasks to start, ``at_once`` of them at a time (0: all), ``needs`` bytes a node.
    """
    quoted = [f"    {shlex.quote(name)}" for name in names]
    train = _train(job, [])
    lines = "\n".join(quoted)
    play = PLAY_OF_MANY.format(folder=shlex.quote(folder), names=lines, train=train)
    tasks = place.ranges(todo)
    if at_once > 0:
        tasks += f"%{at_once}"
    # A task that queues itself again by sbatch is an array of its own.
    own_task = " --array=$SLURM_ARRAY_TASK_ID"
    return _script(job, "fedmpi-sweep", {"array": tasks}, play, command, needs, own_task)


def _train(job, arguments):
    """The words of the command of a rank."""
    train = shlex.join(["fedmpi", "train", *arguments])
    if not job.container:
        return train
    container = shlex.quote(job.container)
    if job.gpus > 0:
        container = f"--nv {container}"
    return f"apptainer exec {container} {train}"


def _script(job, name, more, play, command, needs, again):
    is_srun = program(job.launcher) == "srun"
    signal, _, _ = job.signal.partition("@")
    _, notice_s = notice(job.signal)
    directives = _directives(job, name, more, needs)
    preparation = [f"{line}\n" for line in _preparation(job, is_srun)]
    gentle = GENTLE
    if is_srun:
        gentle = ""
    # A comment ends with its line.
    made_by = " ".join(shlex.join(command).splitlines())
    return TEXT.format(
        command=made_by,
        asked="\n".join(directives),
        signal=signal,
        notice=f"{signal}@{notice_s}",
        left=notice_s,
        launcher=_launcher(job, is_srun),
        prepare="".join(preparation),
        requeues=job.requeues,
        code=COME_BACK,
        play=play,
        again=again,
        gentle=gentle)


def _launcher(job, is_srun):
    # A rank that a signal kills before MPI is up leaves the others of srun waiting for ever;
    # mpirun ends them itself.
    if is_srun:
        return f"{job.launcher} --kill-on-bad-exit=1"
    return f"{job.launcher} -n {job.ranks}"


def _directives(job, name, more, needs):
    """The lines of #SBATCH."""
    values = {
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
    lines = []
    for key, value in values.items():
        if value is not None:
            lines.append(f"#SBATCH --{key}={_directive(value)}")
    for text in job.sbatch:
        lines.append(f"#SBATCH {_other(text)}")
    return lines


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
    """A value for a line of #SBATCH.

    In quotes if it has a blank or a character that begins a comment there.
    """
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


# The run and the command of a rank, as variables of the script: of one run, and of a task's run.
PLAY_ONE = """\
run={run}
train=({train})"""
PLAY_OF_MANY = """\
folder={folder}
names=(
{names}
)
name=${{names[$SLURM_ARRAY_TASK_ID]}}
run=$folder/$name.h5
train=({train} --config "$folder/$name.toml")"""

# Open MPI's mpirun kills its ranks a second after SIGTERM.
GENTLE = """\
mpirun --version 2> /dev/null | grep -q -E "Open(RTE| MPI)" && term=USR1     # a second after SIGTERM it kills its ranks
"""

# Its lines run on a node of the cluster, in bash.
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
{play}
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
