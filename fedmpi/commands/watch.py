"""``fedmpi watch``: live runs in the terminal.

A look opens the file without a lock, reads a few columns and closes it. Nothing is read before the
file has changed, nor within twenty times the duration of the last look. Over a network file system
only opening a file brings news of it, and rows may come after their count: a file with signs of
damage is read again for a second, and reported only if they stay.
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

from fedmpi.commands.reading import NAMED, run_paths, runs_argument
from fedmpi.commands.say import say, write_out
from fedmpi.commands.show import in_words_and_curves
from fedmpi.core.errors import UserError
from fedmpi.core.nearest import nearest
from fedmpi.core.paths import near
from fedmpi.core.wide import USUAL, terminal_width

# Seconds without news until a run marked as running gets a note.
SILENT_S = 60
# Seconds between two looks for a missing run file.
LOOK_S = 0.2
# Seconds of failing reads until they get a note.
TROUBLE_S = 10
# The least pause between two looks, in durations of a look.
REST = 20
HOME, CLEAR_LINE, CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
# A screen of its own, without the cursor.
SCREEN, BACK = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


class Seen(NamedTuple):
    """The last look at a run file."""

    path: str
    run: Any = None
    signature: tuple = ()
    # Monotonic seconds of the last news, and of the last successful look.
    heard: float = 0.0
    well: float = 0.0
    trouble: str = ""


def look(seen, needed, now):
    """``seen`` after another look at the file."""
    from fedmpi.store import read_run
    try:
        # Not os.stat: NFS asks the server only when a file is opened.
        with open(seen.path, "rb") as file:
            stat = os.fstat(file.fileno())
        signature = stat.st_ino, stat.st_size, stat.st_mtime_ns
        if signature == seen.signature:
            return seen._replace(well=now, trouble="")
        run = read_run(seen.path, needed, patience_s=1.0)
    except (OSError, UserError) as error:
        return seen._replace(trouble=str(error))
    return seen._replace(run=run, signature=signature, heard=now, well=now, trouble="")


def notes(looks, now):
    """A line for each silent or unreadable run."""
    for seen in looks:
        unread_s = now - seen.well
        silent_s = now - seen.heard
        if seen.trouble and unread_s > TROUBLE_S:
            yield f"{seen.path} cannot be read for {unread_s:.0f} s: {seen.trouble}"
        elif going(seen) and silent_s > SILENT_S:
            path = shlex.quote(seen.path)
            yield (
                f"{seen.path}: nothing new for {silent_s:.0f} s; if it was killed, fedmpi train "
                f"--resume {path} goes on")


def going(seen):
    """Whether the run may bring more."""
    if seen.run is None:
        return True
    return seen.run.attrs.get("status") == "running"


@click.command(short_help="Follow runs until all have ended.")
@runs_argument
@click.option(
    "--every", type=click.FloatRange(0.1), default=2.0, show_default=True,
    help="Seconds between two looks.")
@click.option("--wait", type=click.FloatRange(0), default=600.0, show_default=True,
              help="Seconds to wait for run files that are not there yet.")
def watch(runs, every, wait):
    """Follow runs until all have ended, or until q or Ctrl-C: rounds, time left, accuracy, clients,
    rates and curves. Into a pipe or a file it prints a line a round instead. The runs do not
    notice.

    A run file that is not there yet is waited for: train names it in its first line."""
    from fedmpi.read.report.live import ALONE, needed_of
    from fedmpi.store import read_run
    if not _all_there(runs, wait):
        return
    runs = run_paths(runs)
    needed = set()
    if len(runs) == 1:
        needed |= set(ALONE)
    for path in runs:
        # Here, before the screen is taken, other files are refused.
        attrs = read_run(path, {}, patience_s=1.0).attrs
        needed |= needed_of(attrs)
    show = _screen if _has_screen() else _lines
    looks = [Seen(path) for path in runs]
    with contextlib.suppress(KeyboardInterrupt):
        show(looks, needed, every)
    last = {path: read_run(path, patience_s=1.0) for path in runs}
    _last_words(last)


def _has_screen():
    """Whether standard output is a terminal with lines to overwrite."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _all_there(places, wait_s):
    """Wait until all named places exist; False if q or Ctrl-C ended the wait. UserError for a name
    unfit for a future run file, and for a file still missing after ``wait_s``."""
    missing = _missing(places)
    for place in missing:
        check_may_come(place, wait_s)
    if not missing:
        return True
    give_up = time.monotonic() + wait_s
    listed = ", ".join(missing)
    with contextlib.suppress(KeyboardInterrupt), _keys() as pressed:
        say(f"waiting for {listed}, not there yet; q or Ctrl-C leaves")
        while missing:
            if time.monotonic() > give_up:
                raise UserError(f"{missing[0]} has not come within {wait_s:g} s, see --wait")
            if pressed(LOOK_S) == "q":
                return False
            missing = _missing(missing)
        return True
    return False


def _missing(places):
    return [place for place in places if not os.path.exists(place)]


def check_may_come(place, wait_s):
    """UserError unless a run may be about to write the missing file ``place``."""
    folder, name = os.path.split(place)
    is_named = name.lower().endswith(NAMED)
    if not wait_s or not is_named:
        advice = _near(folder, name)
        raise UserError(f"{place}: there is no such file or folder{advice}")
    # The folder runs is made by train.
    is_made = folder in ("", "runs")
    if not is_made and not os.path.isdir(folder):
        raise UserError(
            f"{place}: there is no folder {folder}, so no run can be about to come there")


def _near(folder, name):
    """``; did you mean ...?`` if the folder has a similar name, else ""."""
    searched = folder or "."
    if not os.path.isdir(searched):
        return ""
    similar = nearest(name, os.listdir(searched))
    if not similar:
        return ""
    path = os.path.join(folder, similar)
    return f"; did you mean {path}?"


def _looks(looks, needed, every, pause):
    """Yields a ``Seen`` of each run, again and again, until all runs have ended or
    ``pause(seconds)`` is true."""
    now = time.monotonic()
    looks = [seen._replace(heard=now, well=now) for seen in looks]
    while True:
        begin = time.monotonic()
        looks = [look(seen, needed, begin) if going(seen) else seen for seen in looks]
        yield looks
        if not any(map(going, looks)):
            return
        look_s = time.monotonic() - begin
        if pause(max(every, REST * look_s)):
            return


def _screen(looks, needed, every):
    """Overwrite one screen after every look, until all runs have ended or q is pressed."""
    with _keys() as pressed:
        def pause(seconds):
            return pressed(seconds) == "q"

        click.echo(SCREEN, nl=False)
        try:
            for seen in _looks(looks, needed, every, pause):
                click.echo(_board(seen), nl=False)
        finally:
            click.echo(BACK, nl=False)


def _board(looks):
    """The text of a whole screen, with the codes overwriting the last one."""
    from fedmpi.read.report.live import board
    width, height = shutil.get_terminal_size(USUAL)
    names = shortened([seen.path for seen in looks], width // 3)
    runs = {}
    for seen in looks:
        if seen.run is not None:
            name = names[seen.path]
            runs[name] = seen.run
    footer = list(notes(looks, time.monotonic()))
    clock = time.strftime("%H:%M:%S")
    footer.append(f"{clock}  q: leave")
    # A full last line or column would scroll.
    has_colour = "NO_COLOR" not in os.environ
    text = board(runs, footer, width - 1, height - 1, colour=has_colour)
    lines = [f"{line}{CLEAR_LINE}\n" for line in text.split("\n")]
    return HOME + "".join(lines) + CLEAR_REST


def shortened(paths, width):
    """``{path: name}``, names relative to the present folder. Long names are cut to their last
    ``width`` characters, unless two would be equal then."""
    whole = {path: near(path) for path in paths}
    short = {path: _cut(name, width) for path, name in whole.items()}
    different = set(short.values())
    if len(different) < len(whole):
        return whole
    return short


def _cut(name, width):
    if len(name) <= width:
        return name
    # The dots take one column.
    begin = len(name) - width + 1
    return "…" + name[begin:]


def _lines(looks, needed, every):
    """Writes a line a round, with the run's name if there are several, as long as somebody reads
    them."""
    # {path: rounds written}
    shown = {seen.path: 0 for seen in looks}
    width = terminal_width()
    names = _leads(list(shown), width)
    noted = set()
    for now in _looks(looks, needed, every, time.sleep):
        for seen in now:
            if seen.run is None:
                continue
            for t in range(shown[seen.path], len(seen.run.ends)):
                line = _round_line(seen.run, t, names[seen.path], width)
                if not write_out(line):
                    return
            # Fewer than before if the run was resumed.
            shown[seen.path] = len(seen.run.ends)
        noted = _note(now, noted)


def _leads(paths, width):
    """``{path: text before its lines}``: names if there are several."""
    if len(paths) == 1:
        return {path: "" for path in paths}
    names = shortened(paths, width // 3)
    return {path: f"{name}  " for path, name in names.items()}


def _note(looks, noted):
    """Write the notes that are new; returns the beginnings of all present ones."""
    line_of = {}
    for line in notes(looks, time.monotonic()):
        # A note is the same while only its seconds change.
        beginning, _, _ = line.partition(" for ")
        line_of[beginning] = line
    for beginning in line_of.keys() - noted:
        write_out(line_of[beginning])
    return set(line_of)


def _round_line(run, t, name, width):
    from fedmpi.read import report
    from fedmpi.read.headline import headline
    from fedmpi.read.report.live import pace, planned
    row = {column: values[t] for column, values in run.rounds.items()}
    round_s = pace(run)
    last = planned(run)
    left_s = None
    if round_s is not None:
        # Rounds count from 1, ``t`` from 0.
        left_s = round_s * (last - t - 1)
    num_columns = width - len(name)
    line = report.round_line(row, last, left_s, num_columns, headline(run).name)
    return name + line


@contextlib.contextmanager
def _keys():
    """``pressed(seconds)``: the key pressed within this time, else ""."""
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
        ready, _, _ = select.select([handle], [], [], seconds)
        if not ready:
            return ""
        # Any byte is a character of Latin-1.
        key = os.read(handle, 1).decode("latin-1")
        return key.lower()

    # Ctrl-C still interrupts.
    tty.setcbreak(handle)
    try:
        yield pressed
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def _last_words(runs):
    """Writes the outcome of the runs: of one its summary and picture, of several a table."""
    from fedmpi.read.report.live import table
    if len(runs) > 1:
        lines = table(runs, terminal_width())
        write_out("\n".join(lines))
        return
    run = next(iter(runs.values()))
    write_out(in_words_and_curves(run, sys.stdout.isatty()))
