"""Teams: clients of a round that one worker trains at once, as one job.

A team's job holds the jobs of its clients, its reply their answers. A client is billed for its own message as it would
be alone: what it costs in a federation does not depend on how that is simulated. Who is in a team follows from the
cohort, never from ranks.
"""

from typing import NamedTuple

from fedmpi.transport.base import Reply
from fedmpi.wire import frame


def teams(rows, G):
    """``rows`` in teams of up to G, in their order."""
    return [rows[start: start + G] for start in range(0, len(rows), G)]


def joined(answers):
    """``(meta, arrays)`` of one message that holds all ``answers``, a list of such pairs."""
    return ({"kind": "team", "team": [meta for meta, _ in answers]},
            {f"{number}/{name}": array for number, (_, arrays) in enumerate(answers) for name, array in arrays.items()})


def parted(arrays, count):
    """``count`` dicts of arrays, of those that were ``joined``."""
    parts = [{} for _ in range(count)]
    for name, array in arrays.items():
        number, _, rest = name.partition("/")
        parts[int(number)][rest] = array
    return parts


class Beside(NamedTuple):
    """Jobs that workers do beside those of clients, which start before them: ``replies`` takes the answers."""

    jobs: list
    arrays: list                  # a dict of arrays a job
    replies: list


NOTHING = Beside([], [], [])


def replies(transport, jobs, arrays, chosen, meanwhile=(), beside=NOTHING):
    """A ``Reply`` to each of the ``chosen`` of ``jobs``, teams of positions, in any order; each job travels with its
    ``arrays``. ``meanwhile`` is the transport's; the answers to the jobs ``beside`` go to its list."""
    whole = [jobs[team[0]] if len(team) == 1 else {"team": [jobs[each] for each in team]} for team in chosen]
    given = [arrays[team[0]] if len(team) == 1 else joined([({}, arrays[each]) for each in team])[1] for team in chosen]
    first = len(beside.jobs)
    for reply in transport.map([*beside.jobs, *whole], [*beside.arrays, *given], meanwhile):
        if reply.index < first:
            beside.replies.append(reply)
            continue
        team = chosen[reply.index - first]
        if len(team) == 1:
            yield reply._replace(index=team[0])
            continue
        for each, meta, part in zip(team, reply.meta["team"], parted(reply.arrays, len(team)), strict=True):
            sent = frame.size({"kind": "run", "job": jobs[each]}, arrays[each])
            yield Reply(each, meta, part, reply.rank, sent, frame.size(meta, part))
