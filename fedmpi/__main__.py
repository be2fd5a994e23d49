"""``python -m fedmpi``: what the command ``fedmpi`` is."""

import os
import sys

try:
    HERE = os.getcwd()
except OSError:                # the folder was removed; absolute paths work all the same
    HERE = ""

# Python puts the working folder first, where a random.py of the user's would stand for the library's. main puts it
# last.
if sys.path[:1] == [HERE]:
    del sys.path[0]

from fedmpi.cli import main

if __name__ == "__main__":
    main()
