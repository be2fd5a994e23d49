"""``fedmpi watch``: live runs in the terminal.

A look opens the file without a lock, reads a few columns and closes it; nothing is read before the file has changed,
nor within twenty times what the last look took. Over a network file system opening a file is what brings news of it,
and the rows may come after the number that counts them: what looks damaged is read again for a second, and only told
of when it stays so.
"""

import contextlib
import os
import select
import shlex
import shutil
import sys
import time
from typing import Any, NamedTuple

import click

from fedmpi.core.nearest import nearest
from fedmpi.commands.reading import NAMED, run_paths, runs_argument
from fedmpi.commands.say import say, write_out
from fedmpi.commands.show import in_words_and_curves
from fedmpi.core.errors import UserError
from fedmpi.core.paths import near
from fedmpi.core.wide import USUAL, terminal_width

SILENT_S = 60                        # without news of a run that is marked as running
LOOK_S = 0.2                         # between two looks for a run file that is not there yet
TROUBLE_S = 10                       # in which reading fails, before it is told of
HOME, CLEAR_LINE, CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
SCREEN, BACK = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"       # a screen of its own, without the cursor


class Seen(NamedTuple):
    """What is known of a run file."""

    path: str
    run: Any = None
    signature: tuple = ()
    heard: float = 0.0               # monotonic seconds of the last news
    well: float = 0.0                # of the last look that went well
    trouble: str = ""


def look(seen, needed, now):
    """``seen`` after another look at the file."""
    from fedmpi.store import read_run
    try:
        with open(seen.path, "rb") as file:                # and not stat: NFS asks the server when a file is opened
            stat = os.fstat(file.fileno())
        signature = stat.st_ino, stat.st_size, stat.st_mtime_ns
        if signature == seen.signature:
            return seen._replace(well=now, trouble="")
        run = read_run(seen.path, needed, patience_s=1.0)
    except (OSError, UserError) as error:
        return seen._replace(trouble=str(error))
    return seen._replace(run=run, signature=signature, heard=now, well=now, trouble="")


def notes(found, now):
    """A line for each run that gives no news, or cannot be read."""
    for seen in found:
        if seen.trouble and now - seen.well > TROUBLE_S:
            yield f"{seen.path} cannot be read for {now - seen.well:.0f} s: {seen.trouble}"
        elif going(seen) and now - seen.heard > SILENT_S:
            yield (f"{seen.path}: nothing new for {now - seen.heard:.0f} s; if it was killed, fedmpi train --resume "
                   f"{shlex.quote(seen.path)} goes on")


def going(seen):
    """Whether the run may bring more."""
    return seen.run is None or seen.run.attrs.get("status") == "running"


@click.command()
@runs_argument
@click.option("--every", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Seconds between two looks.")
@click.option("--wait", type=click.FloatRange(0), default=600.0, show_default=True,
              help="Seconds to wait for run files that are not there yet.")
def watch(runs, every, wait):
    """Follow runs until all have ended, or until q or Ctrl-C: rounds, time left, accuracy, clients, rates and curves.
    Into a pipe or a file it prints a line a round instead. The runs do not notice.

    A run file that is not there yet is waited for: train names it in its first line."""
    from fedmpi.read.report.live import ALONE, needed_of
    from fedmpi.store import read_run
    if not _all_there(runs, wait):
        return
    runs = run_paths(runs)
    needed = set(ALONE) if len(runs) == 1 else set()
    for path in runs:
        # What is no run file is refused before the screen is taken.
        needed |= needed_of(read_run(path, {}, patience_s=1.0).attrs)
    with contextlib.suppress(KeyboardInterrupt):
        (_screen if _has_screen() else _lines)([Seen(path) for path in runs], needed, every)
    found = {path: read_run(path, patience_s=1.0) for path in runs}
    _last_words(found)


def _has_screen():
    """Whether lines can be written over on what we write to."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _all_there(places, wait_s):
    """Wait until everything that is named exists; False where q or Ctrl-C ended that. UserError for what cannot be a
    run file to come, and for what has not come."""
    missing = [place for place in places if not os.path.exists(place)]
    for place in missing:
        check_may_come(place, wait_s)
    if not missing:
        return True
    give_up = time.monotonic() + wait_s
    with contextlib.suppress(KeyboardInterrupt), _keys() as pressed:
        say(f"waiting for {', '.join(missing)}, not there yet; q or Ctrl-C leaves")
        while missing := [place for place in missing if not os.path.exists(place)]:
            if time.monotonic() > give_up:
                raise UserError(f"{missing[0]} has not come within {wait_s:g} s, see --wait")
            if pressed(LOOK_S) == "q":
                return False
        return True
    return False


def check_may_come(place, wait_s):
    """UserError where ``place``, which does not exist, is no run file that a run may be about to write."""
    folder, name = os.path.split(place)
    if not wait_s or not name.lower().endswith(NAMED):
        raise UserError(f"{place}: there is no such file or folder{_near(folder, name)}")
    if folder and folder != "runs" and not os.path.isdir(folder):       # runs is made by train
        raise UserError(f"{place}: there is no folder {folder}, so no run can be about to come there")


def _near(folder, name):
    """``; did you mean ...?`` where a name of the folder is close."""
    names = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
    near = nearest(name, names)
    return f"; did you mean {os.path.join(folder, near)}?" if near else ""


def _looks(found, needed, every, pause):
    """Yields what is known, look by look, until all runs have ended or ``pause(seconds)`` says that it is enough."""
    found = [seen._replace(heard=time.monotonic(), well=time.monotonic()) for seen in found]
    while True:
        begin = time.monotonic()
        found = [look(seen, needed, begin) if going(seen) else seen for seen in found]
        yield found
        if not any(map(going, found)) or pause(max(every, 20 * (time.monotonic() - begin))):
            return


def _screen(found, needed, every):
    from fedmpi.read.report.live import board
    with _keys() as pressed:
        click.echo(SCREEN, nl=False)
        try:
            for found in _looks(found, needed, every, lambda seconds: pressed(seconds) == "q"):
                width, height = shutil.get_terminal_size(USUAL)
                names = shortened([seen.path for seen in found], width // 3)
                known = {names[seen.path]: seen.run for seen in found if seen.run is not None}
                told = [*notes(found, time.monotonic()), f"{time.strftime('%H:%M:%S')}  q: leave"]
                text = board(known, told, width - 1, height - 1, colour="NO_COLOR" not in os.environ)
                click.echo(HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in text.split("\n")) + CLEAR_REST, nl=False)
        finally:
            click.echo(BACK, nl=False)


def shortened(paths, width):
    """``{path: name}``, names relative to the present folder; of longer ones the last ``width`` characters, where those
    still differ."""
    whole = {path: near(path) for path in paths}
    names = {path: name if len(name) <= width else "…" + name[len(name) - width + 1:] for path, name in whole.items()}
    return names if len(set(names.values())) == len(whole) else whole


def _lines(found, needed, every):
    """A line a round, with the run's name where there are several, as long as somebody reads them."""
    from fedmpi.read import report
    from fedmpi.read.headline import headline
    from fedmpi.read.report.live import pace, planned
    shown, told, width = {seen.path: 0 for seen in found}, set(), terminal_width()
    names = shortened(list(shown), width // 3)
    for found in _looks(found, needed, every, lambda seconds: time.sleep(seconds)):
        for path, run in ((seen.path, seen.run) for seen in found if seen.run is not None):
            for t in range(shown[path], len(run.ends)):
                row = {name: column[t] for name, column in run.rounds.items()}
                each, last = pace(run), planned(run)
                name = f"{names[path]}  " if len(found) > 1 else ""
                left = None if each is None else each * (last - t - 1)
                metric = headline(run).name
                if not write_out(name + report.round_line(row, last, left, width - len(name), metric)):
                    return
            shown[path] = len(run.ends)                    # fewer than before where a run was resumed
        lines = {line.partition(" for ")[0]: line for line in notes(found, time.monotonic())}
        for key in lines.keys() - told:
            write_out(lines[key])
        told = set(lines)


@contextlib.contextmanager
def _keys():
    """``pressed(seconds)``: the key that is pressed within that time, or nothing."""
    def wait(seconds):
        time.sleep(seconds)
        return ""

    if not sys.stdin.isatty():
        yield wait
        return
    import termios
    import tty
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)

    def pressed(seconds):
        ready = select.select([handle], [], [], seconds)[0]
        return os.read(handle, 1).decode("latin-1").lower() if ready else ""

    tty.setcbreak(handle)                                  # Ctrl-C stays what it is
    try:
        yield pressed
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def _last_words(found):
    """What has become of the runs: of one its summary and picture, of several a table."""
    from fedmpi.read.report.live import table
    if len(found) > 1:
        write_out("\n".join(table(found, terminal_width())))
        return
    run = next(iter(found.values()))
    write_out(in_words_and_curves(run, sys.stdout.isatty()))
