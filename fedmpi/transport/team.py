"""Teams: clients of a round that one worker trains at once, as one job.

A team's job holds the jobs of its clients, its reply their answers. A client is billed for its own message as it would
be alone: what it costs in a federation does not depend on how that is simulated. Who is in a team follows from the
cohort, never from ranks.
"""

from fedmpi.transport.base import Reply
from fedmpi.wire import frame


def teams(rows, alone, G):
    """``rows`` in teams of up to G, in their order; those in ``alone`` by themselves."""
    others = [row for row in rows if row not in alone]
    return [[row] for row in rows if row in alone] + [others[start: start + G] for start in range(0, len(others), G)]


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


def replies(transport, jobs, arrays, chosen, meanwhile=()):
    """A ``Reply`` to each of the ``chosen`` of ``jobs``, teams of positions, in any order; each job travels with its
    ``arrays``. ``meanwhile`` is the transport's."""
    whole = [jobs[team[0]] if len(team) == 1 else {"team": [jobs[each] for each in team]} for team in chosen]
    given = [arrays[team[0]] if len(team) == 1 else joined([({}, arrays[each]) for each in team])[1] for team in chosen]
    for reply in transport.map(whole, given, meanwhile):
        team = chosen[reply.index]
        if len(team) == 1:
            yield reply._replace(index=team[0])
            continue
        for each, meta, part in zip(team, reply.meta["team"], parted(reply.arrays, len(team)), strict=True):
            sent = frame.size({"kind": "run", "job": jobs[each]}, arrays[each])
            yield Reply(each, meta, part, reply.rank, sent, frame.size(meta, part))
