"""Teams: clients of a round trained at once by one worker, as one job.

A team's job holds its clients' jobs, its reply their answers. Each client is billed for its own message as if it were
alone: its cost in a federation does not depend on the simulation. Teams follow from the cohort, never from ranks.
"""

from typing import NamedTuple

from fedmpi.transport.base import Reply
from fedmpi.wire import frame


def teams(rows, G):
    """``rows`` in teams of up to G, in their order."""
    starts = range(0, len(rows), G)
    return [rows[start: start + G] for start in starts]


def joined(answers):
    """``(meta, arrays)`` of one message holding all ``answers``, a list of such pairs."""
    meta = {"kind": "team", "team": [member for member, _ in answers]}
    arrays = {}
    for number, (_, member_arrays) in enumerate(answers):
        for name, array in member_arrays.items():
            arrays[f"{number}/{name}"] = array
    return meta, arrays


def parted(arrays, count):
    """``count`` dicts of arrays, from the arrays of ``joined``."""
    parts = [{} for _ in range(count)]
    for name, array in arrays.items():
        number, _, member_name = name.partition("/")
        parts[int(number)][member_name] = array
    return parts


class Beside(NamedTuple):
    """Jobs beside the clients' ones, started before them; ``replies`` takes the answers."""

    jobs: list
    # a dict of arrays a job
    arrays: list
    replies: list


NOTHING = Beside([], [], [])


def replies(transport, jobs, arrays, chosen, meanwhile=(), beside=NOTHING):
    """A ``Reply`` to each of the ``chosen`` of ``jobs``, teams of positions, in any order; each job travels with its
    ``arrays``. ``meanwhile`` is passed to the transport; the answers to the jobs ``beside`` go to its list."""
    team_jobs = [_team_job(jobs, team) for team in chosen]
    team_arrays = [_team_arrays(arrays, team) for team in chosen]
    first = len(beside.jobs)
    all_jobs = [*beside.jobs, *team_jobs]
    all_arrays = [*beside.arrays, *team_arrays]
    for reply in transport.map(all_jobs, all_arrays, meanwhile):
        if reply.index < first:
            beside.replies.append(reply)
        else:
            yield from _parted_reply(reply, chosen[reply.index - first], jobs, arrays)


def _team_job(jobs, team):
    if len(team) == 1:
        return jobs[team[0]]
    return {"team": [jobs[position] for position in team]}


def _team_arrays(arrays, team):
    if len(team) == 1:
        return arrays[team[0]]
    _, joined_arrays = joined([({}, arrays[position]) for position in team])
    return joined_arrays


def _parted_reply(reply, team, jobs, arrays):
    """A ``Reply`` for each member of a team, with the bytes of its own job and answer."""
    if len(team) == 1:
        yield reply._replace(index=team[0])
        return
    parts = parted(reply.arrays, len(team))
    answers = reply.meta["team"]
    for position, meta, part in zip(team, answers, parts, strict=True):
        # As if the client had been asked alone.
        request = {"kind": "run", "job": jobs[position]}
        job_bytes = frame.size(request, arrays[position])
        reply_bytes = frame.size(meta, part)
        yield Reply(position, meta, part, reply.rank, job_bytes, reply_bytes)
