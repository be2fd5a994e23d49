"""What mpirun starts for a rank of ``warm_ranks``: it stands for a rank that another process has forked.

    python -S -E rank_shim.py SOCKET ARGUMENTS...       # as python ARGUMENTS... would, but for the imports

It gives its streams, its environment and its line to the launcher to the process that listens at SOCKET,
and ends as the rank there does. Under a launcher of another kind it becomes the rank itself.
"""

import json
import os
import signal
import socket
import sys

LAUNCHER = "PMI_FD"

place, *arguments = sys.argv[1:]
if LAUNCHER not in os.environ:
    os.execv(sys.executable, [sys.executable, *arguments])
request = json.dumps({"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}).encode()
handles = [0, 1, 2, int(os.environ[LAUNCHER])]
with socket.socket(socket.AF_UNIX) as server:
    server.connect(place)
    socket.send_fds(server, [len(request).to_bytes(8, "big")], handles)
    server.sendall(request)
    answer = server.makefile().read()
# Without an answer the server has ended, and the rank with it.
status = os.waitstatus_to_exitcode(int(answer or signal.SIGKILL))
if status < 0:
    # Python ignores SIGPIPE, of which a rank may have died.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
