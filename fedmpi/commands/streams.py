"""Standard input, output and error as a command finds them: closed, full, without a reader, of any encoding."""

import codecs
import errno
import functools
import io
import os
import select
import stat
import sys
import unicodedata

from fedmpi.run.launcher import MPIRUNS, parents, started

PLAIN = "fedmpi-plain"           # our way to write a character that a stream's encoding lacks
LOOK_ALIKES = str.maketrans({
    "─": "-", "│": "|", "·": ".", "░": ".", "▒": "+", "▓": "%", "█": "#", "±": "+-", "×": "x", "…": "...", "→": "->"})
DOTS = ".:+#"                    # for one or two dots of a braille pattern, up to four, six and eight


def ready():
    """Make the three streams fit to be used: to be called once, before a command opens anything."""
    for handle in (0, 1, 2):
        _open_if_closed(handle)
    codecs.register_error(PLAIN, _plain)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)


def write(stream, text):
    """Whether somebody can read what was written; OSError where the stream does not take it for another reason. What
    was not taken is forgotten, so that it is in nobody's way later."""
    if _unread_by_launcher(stream):
        return False
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _forget(stream, for_good=True)
        return False
    except OSError:
        _forget(stream, for_good=False)
        raise
    return True


def settle():
    """Forget what cannot be written: Python would complain when it ends, and end with another exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _forget(stream, for_good=True)


def plain(text):
    """``text`` in ASCII: pictures by characters that look alike, all else as Python writes it in a literal."""
    return "".join(_ascii(character) for character in text)


def _ascii(character):
    shown = character.translate(LOOK_ALIKES)
    if shown.isascii():
        return shown
    name = unicodedata.name(character, "")
    if name.startswith("BOX DRAWINGS"):
        return "+"
    if name.startswith("BRAILLE PATTERN"):
        num_dots = (ord(character) - 0x2800).bit_count()
        return DOTS[max(0, num_dots - 1) // 2] if num_dots else " "
    return character.encode("ascii", "backslashreplace").decode()


def _plain(error):
    """The handler of PLAIN. Bytes of a file's name that are no text are written as they are: so the name can be used
    again."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return b"".join(_byte(each) for each in error.object[error.start: error.end]), error.end


def _byte(character):
    if 0xDC80 <= ord(character) <= 0xDCFF:                 # as os.fsdecode hides a byte
        return bytes([ord(character) - 0xDC00])
    return _ascii(character).encode()


def _open_if_closed(handle):
    """A closed one is taken by the next file that is opened, which then gets our lines and those of libraries in C."""
    try:
        os.fstat(handle)
    except OSError:
        os.open(os.devnull, os.O_RDWR)                     # takes the lowest number that is free: this one


def _forget(stream, for_good):
    """Drop what the stream holds; ``for_good``: and whatever is written there later."""
    try:
        handle = stream.fileno()
    except OSError:                                        # it is no file: a test's, or a notebook's
        return
    before, nowhere = os.dup(handle), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, handle)
    stream.flush()
    if not for_good:
        os.dup2(before, handle)
    os.close(before)
    os.close(nowhere)


def _unread_by_launcher(stream):
    """Whether a launcher passes on what we write, to nobody: it would die of our next line, and end the run."""
    try:
        handle = stream.fileno()
    except OSError:
        return False
    launcher = _passing_on() if handle in (1, 2) else 0
    return launcher > 0 and _unread(f"/proc/{launcher}/fd/{handle}")


def _unread(path):
    """Whether ``path`` is a pipe without a reader."""
    try:
        if not stat.S_ISFIFO(os.stat(path).st_mode):
            return False
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        return error.errno == errno.ENXIO                  # a pipe that has a name says so
    poll = select.poll()
    poll.register(handle, select.POLLOUT)
    unread = any(event & select.POLLERR for _, event in poll.poll(0))
    os.close(handle)
    return unread


@functools.cache
def _passing_on():
    """The process of this machine that has started us as a rank and passes on what we write; 0 where there is none."""
    if not started():
        return 0
    return next((pid for pid, name in parents() if name.startswith(MPIRUNS)), 0)
