"""What the fixture in_turn starts under mpirun: commands of fedmpi, one after the other on the same ranks, which import
torch once.

    commands_script.py '[["train", "--out", "run.h5"], ["train", "--resume", "run.h5"]]'
"""

import json
import signal
import sys

from fedmpi.cli import main

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["fedmpi", *arguments]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    signal.alarm(0)                                        # what limits the end of MPI, which does not come yet
    from mpi4py import MPI
    MPI.COMM_WORLD.Barrier()                               # a rank that is early would greet a rank 0 that still ends
