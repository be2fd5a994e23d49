"""Standard input, output and error in every state: closed, full, without a reader, of any
encoding."""

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

# Our way to write a character missing in a stream's encoding.
PLAIN = "fedmpi-plain"
LOOK_ALIKES = str.maketrans({
    "─": "-",
    "│": "|",
    "·": ".",
    "░": ".",
    "▒": "+",
    "▓": "%",
    "█": "#",
    "±": "+-",
    "×": "x",
    "…": "...",
    "→": "->",
})
# For one or two dots of a braille pattern, up to four, six and eight.
DOTS = ".:+#"


def ready():
    """Make the three streams usable: to be called once, before a command opens anything."""
    for handle in (0, 1, 2):
        _open_if_closed(handle)
    codecs.register_error(PLAIN, _plain)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)


def write(stream, text):
    """Writes ``text``: True; False if nobody can read it. OSError for any other failure. Unwritten
    text is dropped, so that it cannot fail again later."""
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
    """Drop unwritable text: Python would complain at its end, and exit with another code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _forget(stream, for_good=True)


def plain(text):
    """``text`` in ASCII: pictures by similar characters, everything else as in a Python literal."""
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
        if num_dots == 0:
            return " "
        return DOTS[(num_dots - 1) // 2]
    return character.encode("ascii", "backslashreplace").decode()


def _plain(error):
    """The handler of PLAIN. Undecodable bytes of a file's name are written as they are, so that the
    name stays usable."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unwritable = error.object[error.start: error.end]
    return b"".join(map(_bytes_of, unwritable)), error.end


def _bytes_of(character):
    # os.fsdecode hides a byte in such a character.
    if 0xDC80 <= ord(character) <= 0xDCFF:
        return bytes([ord(character) - 0xDC00])
    return _ascii(character).encode()


def _open_if_closed(handle):
    """Opens a closed stream. Otherwise the next opened file would take its number, and get our
    lines and C libraries'."""
    try:
        os.fstat(handle)
    except OSError:
        # This takes the lowest free number, the stream's.
        os.open(os.devnull, os.O_RDWR)


def _forget(stream, for_good):
    """Drop the stream's unwritten text; ``for_good``: all later text, too."""
    try:
        handle = stream.fileno()
    # It is no file: a test's, or a notebook's.
    except OSError:
        return
    before = os.dup(handle)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, handle)
    stream.flush()
    if not for_good:
        os.dup2(before, handle)
    os.close(before)
    os.close(nowhere)


def _unread_by_launcher(stream):
    """Whether a launcher passes our lines on to nobody: it would die of the next line, and end the
    run."""
    try:
        handle = stream.fileno()
    except OSError:
        return False
    if handle not in (1, 2):
        return False
    launcher = _passing_on()
    return launcher > 0 and _unread(f"/proc/{launcher}/fd/{handle}")


def _unread(path):
    """Whether ``path`` is a pipe without a reader."""
    try:
        if not stat.S_ISFIFO(os.stat(path).st_mode):
            return False
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        # A named pipe without a reader.
        return error.errno == errno.ENXIO
    poll = select.poll()
    poll.register(handle, select.POLLOUT)
    unread = any(event & select.POLLERR for _, event in poll.poll(0))
    os.close(handle)
    return unread


@functools.cache
def _passing_on():
    """The launcher's process on this machine, which passes on our lines; 0 without one."""
    if not started():
        return 0
    for pid, name in parents():
        if name.startswith(MPIRUNS):
            return pid
    return 0
