"""Findings about libraries: MPI and its launcher, torch, versions."""

import os
from functools import partial

from fedmpi.cluster.findings.finding import Finding, compared, good
from fedmpi.core.words import plural

CUDA_AWARE = {True: "yes", False: "no", None: "it does not say"}


def mpi(ranks, mpirun):
    """Findings about mpi4py's MPI, and about launchers."""
    library = ranks[0]["mpi"]
    if "error" in library:
        yield Finding(
            "warning", "MPI", library["error"],
            expected="an MPI that mpi4py can load; one process works without",
            way_out="load the cluster's MPI module, or pip install 'fedmpi[mpi]'; "
                    "on a login node, ask inside a job")
    else:
        yield _library(ranks, library)
    yield from _launcher(ranks, mpirun, library)


def _library(ranks, library):
    name, same = compared(ranks, _library_name)
    if not same:
        return Finding(
            "error", "MPI", name,
            expected="one MPI library on all ranks",
            way_out="load the same modules on all nodes")
    aware = CUDA_AWARE[library["cuda_aware"]]
    binding = f"mpi4py {library['mpi4py']} ({library['binary']})"
    support = f"threads {library['threads']}, CUDA-aware: {aware}"
    reason = "(not used: messages are coded on the host)"
    return good("MPI", f"{name}, MPI {library['standard']}, {binding}, {support} {reason}")


def _library_name(facts):
    return facts["mpi"]["library"]


def _started_by(facts):
    return facts["launcher"]


def _launcher(ranks, mpirun, library):
    started_by, _ = compared(ranks, _started_by)
    path, version_text = mpirun["path"], mpirun["text"]
    if not path and started_by == "none":
        yield Finding(
            "note", "launcher", "no mpirun in PATH",
            expected="one, for more than one rank",
            way_out="load the cluster's MPI module, or start by srun")
        return
    # Ranks of srun do not need an mpirun.
    is_needed = path and started_by != "srun"
    if is_needed and _is_foreign(version_text, library):
        owner = _owner(path, version_text)
        yield Finding(
            "warning", "launcher", f"{owner}, mpi4py loads {library['library']}",
            expected="both of one MPI",
            way_out="put that MPI's bin first in PATH")
        return
    yield good("launcher", f"started by {started_by}; mpirun is {path or 'missing'}")
    yield from _typed_launcher(mpirun, library)


def _typed_launcher(mpirun, library):
    """A note if the name ``mpirun`` means a launcher of another MPI than mpi4py's.

    fedmpi itself starts the mpirun beside its Python; PATH may hide it.
    """
    path, typed, version_text = mpirun["path"], mpirun["typed"], mpirun["typed_text"]
    if not typed or not _is_foreign(version_text, library):
        return
    owner = _owner(typed, version_text)
    folder = os.path.dirname(path)
    yield Finding(
        "note", "launcher",
        f"{owner} and comes first in PATH, mpi4py loads {library['library']}",
        expected=f"to start by {path}, as fedmpi itself does",
        way_out=f"put {folder} first in PATH, or type that path")


def _is_foreign(version_text, library):
    """Whether a launcher is of another MPI than mpi4py's, as far as known."""
    if "error" in library:
        return False
    return _is_open_mpi(version_text) != _is_open_mpi(library["library"])


def _owner(path, version_text):
    if _is_open_mpi(version_text):
        return f"{path} is of Open MPI"
    return f"{path} is of another MPI"


def _is_open_mpi(text):
    # Its launchers called themselves OpenRTE up to version 4.
    return "Open MPI" in text or "OpenRTE" in text


def torch(ranks):
    """A finding about the builds of torch: other builds, or processors, round otherwise."""
    text, same = compared(ranks, _build)
    if same:
        yield good("torch", text)
        return
    yield Finding(
        "warning", "torch", text,
        expected="one build on processors of one kind, for the same bits in every run",
        way_out="ask for nodes of one kind; "
                "which rank trains which client may differ from run to run")


def _build(facts):
    """The build of a rank's torch, as text."""
    build = facts["torch"]
    libraries = []
    if build["mkl"]:
        libraries.append("MKL")
    if build["onednn"]:
        libraries.append("oneDNN")
    version = facts["versions"]["torch"]
    cuda = build["cuda"] or "none"
    library = " and ".join(libraries) or "no MKL"
    threads = f"{plural(facts['threads'], 'thread')} a rank"
    return f"{version}, CUDA {cuda}, {library}, {build['vectors']}, {threads}"


def versions(ranks):
    """Findings about packages: an error for each with several versions."""
    shown = []
    all_same = True
    for name, version in ranks[0]["versions"].items():
        shown.append(f"{name} {version}")
        text, same = compared(ranks, partial(_version, name))
        all_same = all_same and same
        if not same:
            yield Finding(
                "error", "versions", f"{name} {text}",
                expected="the same on all ranks",
                way_out="activate one environment on all nodes")
    if not all_same:
        return
    if len(ranks) > 1:
        shown.append("on all ranks")
    yield good("versions", ", ".join(shown))


def _version(name, facts):
    return facts["versions"][name]
