"""The command line: the group of all commands, each in a file of ``fedmpi.commands``, and how its errors end. Torch and
MPI are imported by what a command needs."""

import errno
import os
import sys
import traceback

import click

from fedmpi import __version__
from fedmpi.commands import completion
from fedmpi.commands.bench import bench
from fedmpi.commands.compare import compare
from fedmpi.commands.data import data
from fedmpi.commands.doctor import doctor
from fedmpi.commands.experiment import experiment
from fedmpi.commands.export import export
from fedmpi.commands.fetch import fetch
from fedmpi.commands.merge import merge
from fedmpi.commands.model import export_model, model
from fedmpi.commands.parts import list_parts
from fedmpi.commands.plot import plot
from fedmpi.commands.report import report
from fedmpi.commands.say import say
from fedmpi.commands.sbatch import sbatch
from fedmpi.commands.schema import schema
from fedmpi.commands.show import show
from fedmpi.commands.sweep import sweep
from fedmpi.commands.train import train
from fedmpi.commands.verify import verify
from fedmpi.commands.watch import watch
from fedmpi.errors import FedError, UserError

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)    # not the user's mistake, and mostly without a file's name


def main():
    """The console script: a user's mistake is one line and exit code 2, on every rank alike."""
    sys.path.append(os.getcwd())                             # the user's own modules, beside where they work
    if completion.VARIABLE in os.environ:
        click.echo(completion.answer(cli))
        return
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.Abort:
        say("interrupted")
        sys.exit(130)
    except click.ClickException as error:
        say(f"error: {error.format_message()}")
        sys.exit(2)
    except UserError as error:
        say(f"error: {error}")
        sys.exit(2)
    except FedError as error:
        say(f"error: {error}")
        sys.exit(1)
    except OSError as error:
        if error.errno in DISK:
            say(f"error: cannot write {error.filename or 'what comes out'}: {error.strerror}")
            sys.exit(1)
        if error.filename is None:
            say(traceback.format_exc())
            sys.exit(1)
        say(f"error: {error.filename}: {error.strerror}")
        sys.exit(2)
    except Exception:
        say(traceback.format_exc())
        sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def cli():
    """Federated learning of large sparse models, simulated over MPI.

    \b
    mpirun -n 33 fedmpi train        the main job: 32 clients on 32 worker ranks
    fedmpi train                     the same bits in one process
    fedmpi list pruner               what can be chosen, with its options
    fedmpi data --partition shards   who would hold which samples
    fedmpi show RUN.h5               summary and curves
    """


for command in (train, sbatch, sweep, experiment, data, list_parts, show, watch, report, compare, plot, export, model,
                export_model, merge, verify, schema, fetch, doctor, bench, completion.completion):
    cli.add_command(command)
