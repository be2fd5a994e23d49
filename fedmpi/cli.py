"""The command line: the group of all commands, each in a file of ``fedmpi.commands``, and how its errors end. Torch and
MPI are imported by what a command needs."""

import errno
import os
import sys
import traceback

import click

from fedmpi import __version__
from fedmpi.core import paths
from fedmpi.run import surroundings
from fedmpi.commands import completion, streams
from fedmpi.commands.bench import bench
from fedmpi.commands.compare import compare
from fedmpi.commands.data import data
from fedmpi.commands.doctor import doctor
from fedmpi.commands.experiment import experiment
from fedmpi.commands.export import export
from fedmpi.commands.fetch import fetch
from fedmpi.commands.help import help_pages
from fedmpi.commands.merge import merge
from fedmpi.commands.model import export_model, model
from fedmpi.commands.new import new
from fedmpi.commands.parts import list_parts
from fedmpi.commands.plot import plot
from fedmpi.commands.report import report
from fedmpi.commands.sample import sample
from fedmpi.commands.say import say
from fedmpi.commands.sbatch import sbatch
from fedmpi.commands.schema import schema
from fedmpi.commands.show import show
from fedmpi.commands.sweep import sweep
from fedmpi.commands.train import train
from fedmpi.commands.verify import verify
from fedmpi.commands.watch import watch
from fedmpi.core.errors import FedError, UserError
from fedmpi.plugins.shadow import in_the_way

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)    # not the user's mistake, and mostly without a file's name
# Commands that work, or tell of it, where HDF5 does not.
WITHOUT_FILES = ("list", "new", "help", "completion", "doctor")


def main():
    """The console script: a user's mistake is one line and exit code 2, on every rank alike."""
    streams.ready()
    paths.leave_what_is_gone()
    if folder := paths.working_folder():
        sys.path.append(folder)                              # the user's own modules, beside where they work
    if completion.VARIABLE in os.environ:
        click.echo(completion.answer(cli))
        return
    try:
        code = _played()
    finally:
        streams.settle()
    sys.exit(code)


def _played():
    """The exit code of the command, whose errors are told."""
    try:
        return cli.main(standalone_mode=False) or 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        say("interrupted")
        return 130
    except click.ClickException as error:
        say(f"error: {error.format_message()}")
        return 2
    except UserError as error:
        return _told(error, 2)
    except FedError as error:
        return _told(error, 1)
    except SystemExit as error:                              # by which click ends where nobody reads any more
        return 0 if isinstance(sys.stdout, click.utils.PacifyFlushWrapper) else error.code
    except OSError as error:
        return _of_files(error)
    except (ImportError, AttributeError) as error:
        line = in_the_way(error)
        say(f"error: {line}" if line else traceback.format_exc())
        return 2 if line else 1
    except Exception:
        say(traceback.format_exc())
        return 1


def _told(error, code):
    """Tell of an error in one line; the exit code."""
    say(f"error: {error}{paths.perhaps_gone()}")
    return code


def _of_files(error):
    """The exit code of an error about files, which is told."""
    if error.errno in DISK:
        return _told(f"cannot write {error.filename or 'what comes out'}: {error.strerror}", 1)
    if error.filename is not None:
        return _told(f"{error.filename}: {error.strerror}", 2)
    if not paths.working_folder():                           # Python asked where it is
        return _told("a relative path has no place to begin at", 2)
    say(traceback.format_exc())
    return 1


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
    fedmpi help                      the pages of the documentation
    """
    if click.get_current_context().invoked_subcommand not in WITHOUT_FILES:
        surroundings.check_hdf5()


for command in (train, sbatch, sweep, experiment, data, list_parts, new, show, watch, report, compare, plot, export,
                model, export_model, sample, merge, verify, schema, fetch, doctor, bench, help_pages,
                completion.completion):
    cli.add_command(command)
