"""The transports: what is sent arrives, whole, counted, from any rank; and waiting costs next to nothing."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from conftest import environment, find_mpirun

from fedmpi.transport.local import Local


@pytest.mark.parametrize("ranks, nodes", [(2, 1), (4, 1), (7, 1), (6, 2), (7, 5), (4, 4)])
def test_mpi_transport(ranks, nodes, tmp_path):
    """MPICH can take one machine for several nodes, its ranks dealt out round robin."""
    mpirun = find_mpirun()
    if mpirun is None:
        pytest.skip("no mpirun: pip install mpich, or load the cluster's MPI")
    script = pathlib.Path(__file__).with_name("transport_script.py")
    done = subprocess.run([mpirun, "-n", str(ranks), sys.executable, str(script)], timeout=120,
                          env=environment(TMPDIR=str(tmp_path), MPIR_CVAR_NUM_CLIQUES=str(nodes)),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0 and "everything arrived" in done.stdout, done.stdout
    if nodes > 1 and "on 1 nodes" in done.stdout:
        pytest.skip("this MPI does not take one machine for several nodes")
    assert f"on {nodes} nodes" in done.stdout


def test_waiting_is_polite():
    """A rank that waits two seconds burns at most 2 % of a core."""
    mpirun = find_mpirun()
    if mpirun is None:
        pytest.skip("no mpirun: pip install mpich, or load the cluster's MPI")
    code = ("import time, numpy as np\nfrom mpi4py import MPI\nfrom fedmpi.transport import messages\n"
            "c = MPI.COMM_WORLD\nif c.rank == 0:\n    time.sleep(2)\n    messages.send(c, np.zeros(8, np.uint8), 1)\n"
            "else:\n    start = time.process_time()\n    messages.receive(c, 0)\n"
            "    print('burnt', time.process_time() - start)\n")
    done = subprocess.run([mpirun, "-n", "2", sys.executable, "-c", code], env=environment(), timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert float(done.stdout.split("burnt")[1]) <= 0.04


def test_a_rank_that_is_woken_looks_several_times_before_it_sleeps_again():
    """MPICH's first probe may miss what has come: a rank that then slept on would lose milliseconds at every
    message."""
    mpirun = find_mpirun()
    if mpirun is None:
        pytest.skip("no mpirun: pip install mpich, or load the cluster's MPI")
    code = ("from fedmpi.transport import messages\nlooks, naps = [], []\n"
            "def done():\n    looks.append(len(naps))\n    return looks.count(1) == 3\n"
            "def nap(waited):\n    naps.append(waited)\n    assert len(naps) < 9\n    return len(naps) == 1\n"
            "messages.wait(done, nap=nap)\nprint('naps', len(naps), 'looks', looks)\n")
    done = subprocess.run([mpirun, "-n", "1", sys.executable, "-c", code], env=environment(), timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0 and f"naps 1 looks {[0] * 4 + [1] * 3}" in done.stdout, done.stdout


def test_the_local_transport_counts_what_it_packs():

    class Echo:
        def receive(self, meta, arrays):
            self.published = arrays

        def run(self, job, arrays):
            return job, self.published

    transport = Local(Echo())
    values = np.arange(10.0)
    down = transport.publish({"kind": "round"}, {"values": values})
    replies = list(transport.map([{"client": 0}, {"client": 1}]))
    assert [reply.meta["client"] for reply in replies] == [0, 1]
    assert all(np.array_equal(reply.arrays["values"], values) for reply in replies)
    assert transport.sent == down + sum(reply.job_bytes for reply in replies)
    assert transport.received == sum(reply.reply_bytes for reply in replies) >= 2 * values.nbytes
