"""The doctor's verdict: the findings of all topics, as a table, with an exit code.

``fedmpi.cluster.examine`` measures the facts, and ``fedmpi.cluster.findings`` knows their meaning.

Exit codes: 0 if nothing is worse than a note, 1 for warnings, 2 for errors.
"""

from fedmpi.cluster.findings import placement, process, room, software, speed
from fedmpi.cluster.findings.finding import SEVERITIES
from fedmpi.core.wide import labelled
from fedmpi.core.words import plural


def judged(facts):
    """The ``Finding``s of the facts of ``examine.measured``, the worst first."""
    ranks = facts["ranks"]
    findings = [
        *process.around(facts["around"], facts["mislaunched"]),
        *software.mpi(ranks, facts["mpirun"]),
        *placement.places(ranks),
        *placement.gpus(ranks),
        *software.torch(ranks),
        *software.versions(ranks),
        *speed.speed(ranks, facts["probe"]),
        *room.folder(facts["folder"]),
        *room.room(ranks),
        *process.limits(ranks),
    ]
    return sorted(findings, key=_rank_of_severity, reverse=True)


def _rank_of_severity(finding):
    return SEVERITIES.index(finding.severity)


def exit_code(findings):
    """0, 1 for warnings, 2 for errors."""
    worst = max(map(_rank_of_severity, findings), default=0)
    return max(0, worst - 1)


def text(findings, width=None):
    """The table, at most ``width`` wide.

    Problems come first, each with the expected value and the way out, then the good findings.
    """
    rows = []
    space = max(len(finding.subject) for finding in findings)
    for finding in findings:
        label = f"{finding.severity:<8} {finding.subject:<{space}}"
        rows.append((label, finding.got))
        if finding.expected:
            advice = f"expected: {finding.expected}; way out: {finding.way_out}"
            rows.append(("", advice))
    table = "\n".join(labelled(rows, width))
    return f"{table}\n\n{verdict(findings)}"


def verdict(findings):
    """The number of findings of each severity, in a line."""
    severities = [finding.severity for finding in findings]
    parts = []
    for severity in ("error", "warning", "note"):
        num = severities.count(severity)
        if num:
            parts.append(plural(num, severity))
    counted = ", ".join(parts) or "nothing to complain of"
    return f"{counted}; exit code {exit_code(findings)}"


def as_json(facts, findings):
    """All of it as JSON takes it."""
    rows = [finding._asdict() for finding in findings]
    return {"exit_code": exit_code(findings), "findings": rows, **facts}
