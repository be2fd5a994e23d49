"""The events of a run: starts, lost clients, checkpoints and the end, one row each.

Each row is ``(round, event, client, time, text)``. ``time`` and ``client`` are None if the run file
does not record them.
"""

import os

import pandas as pd

from fedmpi.core.paths import readable
from fedmpi.store import checkpoint_folder, checkpoints

# {column: (unit, description)}
EVENTS = {
    "round": ("1", "after which, or in which it happened"),
    "event": ("", "what happened"),
    "client": ("1", "to which client"),
    "time": ("", "UTC, where it is known"),
    "text": ("", "more about it"),
}


def events_frame(path, attrs, sessions, clients, num_rounds):
    """A DataFrame with the columns of EVENTS, ordered by round.

    ``clients`` is the frame of participations. Events after ``num_rounds`` are left out."""
    rows = [
        *_lost_clients(clients),
        *_checkpoints(path),
        *_starts(sessions),
        *_end(attrs, num_rounds),
    ]
    rows = [row for row in rows if row[0] <= num_rounds]
    # A stable sort: within a round, the order of the kinds above stays.
    rows.sort(key=lambda row: row[0])
    frame = pd.DataFrame(rows, columns=list(EVENTS))
    # Int64 with a capital can hold missing clients.
    frame = frame.astype({"round": "int64", "client": "Int64", "event": "str", "text": "str"})
    times = pd.to_datetime(frame["time"], utc=True, format="ISO8601")
    frame["time"] = times.dt.floor("s")
    return frame


def _starts(sessions):
    for number, session in enumerate(sessions):
        done = session.get("done")
        was_resumed = number > 0
        if was_resumed and done is None:
            # Early run files do not record the round from which a session went on.
            continue
        event = "resumed" if was_resumed else "started"
        yield done or 0, event, None, session.get("time"), _place_text(session)


def _place_text(session):
    num_ranks = session.get("ranks")
    noun = "rank" if num_ranks == 1 else "ranks"
    return f"{num_ranks} {noun} on {session.get('hosts')}"


def _lost_clients(clients):
    """Lost answers: asked for, but not merged. Then the rounds without a merged answer."""
    if "outcome" not in clients or not len(clients):
        return
    is_lost = ~clients["outcome"].isin(["merged", "passed"])
    lost = clients[is_lost]
    for round, client, outcome in zip(lost["round"], lost["client"], lost["outcome"]):
        yield round, str(outcome), client, None, ""
    is_merged = clients["outcome"] == "merged"
    any_merged = is_merged.groupby(clients["round"]).any()
    for round in any_merged.index[~any_merged]:
        yield round, "nobody merged", None, None, "the model stays"


def _checkpoints(path):
    """The checkpoints still in their folder."""
    folder = checkpoint_folder(path)
    for round, name in reversed(checkpoints(folder)):
        checkpoint = os.path.join(folder, name)
        try:
            written_s = os.stat(checkpoint).st_mtime
        except FileNotFoundError:
            # A run that goes on has removed it meanwhile.
            continue
        time = pd.Timestamp(written_s, unit="s", tz="UTC").isoformat()
        yield round, "checkpoint", None, time, readable(checkpoint)


def _end(attrs, num_rounds):
    status = attrs.get("status")
    if status not in (None, "running"):
        yield num_rounds, status, None, attrs.get("ended"), attrs.get("error", "")
