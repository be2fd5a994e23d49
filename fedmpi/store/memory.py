"""The store in memory: the twin of RunFile that needs no file."""

import warnings

import numpy as np

from fedmpi.core.errors import CheckpointError
from fedmpi.store.attrs import own_attrs, plain, same_keys
from fedmpi.store.rows import (Column, Run, check_truncate, checked_columns, checked_round,
                               dtype_name, own_dims)
from fedmpi.store.states import check_save, flattened, unflattened


class MemoryStore:
    """A run that is held in memory, for notebooks and tests; the same interface and bits as RunFile."""

    shelf = None                  # what clients keep stays in the state

    def __init__(self, attrs, rounds, clients, population, partition, own=()):
        self.columns = dict(rounds=checked_columns(rounds), clients=checked_columns(clients), own=checked_columns(own))
        self._attrs = plain(own_attrs(attrs))
        self.run_id = self._attrs["run_id"]
        self._population = {name: (np.array(fact[0]), *fact[1:]) for name, fact in population.items()}
        self._partition = tuple(np.array(a) for a in partition)
        self._rows, self._many, self._sessions, self._saved = [], [], [], {}

    @classmethod
    def create(cls, path, attrs, rounds, clients, population, partition, own=(), *, coordinates=None, expected=None):
        """A new store, from the arguments that RunFile takes; ``path``, ``coordinates`` and ``expected``, which shape a
        file, have no meaning here."""
        return cls(attrs, rounds, clients, population, partition, own)

    @property
    def rounds(self):
        """Number of committed rounds."""
        return len(self._rows)

    def append(self, row, client_rows, own_rows=None):
        """Adds one round: a row of /rounds, C rows of /clients, and those of /own; ValueError, and no change, if a
        value does not fit."""
        row, many = checked_round(self.columns, row, client_rows, own_rows)
        self._rows.append(row)
        self._many.append(many)

    def truncate(self, rounds):
        """Forgets every round but the first ``rounds``, and what was saved after those."""
        check_truncate(rounds, self.rounds)
        del self._rows[rounds:], self._many[rounds:]
        self._saved = {round: saved for round, saved in self._saved.items() if round <= rounds}

    def update(self, attrs):
        """Sets root attributes, such as ``status`` and ``ended``."""
        self._attrs.update(plain(attrs))

    def add_session(self, session):
        """Adds one row to /sessions: ISO time, ranks, hosts, git commit, command line."""
        self._sessions = same_keys([*self._sessions, plain(session)])

    def save(self, state, round, keep=2):
        """Keeps a copy of the state after ``round``, and of the newest ``keep`` only."""
        check_save(round, keep)
        entries, arrays = flattened(state)
        self._saved[round] = entries, [None if a is None else a.copy() for a in arrays]
        for old in [r for r in self._saved if r > round] + sorted(r for r in self._saved if r <= round)[:-keep]:
            del self._saved[old]

    def settle(self):
        """Nothing to wait for."""

    def pack(self):
        """Nothing to pack."""

    def load(self, warn=warnings.warn):
        """``(state, round)`` of the newest save."""
        if not self._saved:
            raise CheckpointError("this run has no checkpoint yet")
        entries, arrays = self._saved[max(self._saved)]
        return unflattened(entries, [None if a is None else a.copy() for a in arrays]), max(self._saved)

    def run(self):
        """The run so far, as ``read_run`` gives it."""
        tables = self.columns
        return Run(
            attrs=plain(self._attrs),
            rounds={c.name: _stacked(c, [[row[c.name]] for row in self._rows]) for c in tables["rounds"]},
            clients=self._table("clients"),
            population={name: fact[0].copy() for name, fact in self._population.items()},
            partition=tuple(a.copy() for a in self._partition),
            sessions=plain(self._sessions),
            columns={f"{table}/{c.name}": c for table, cs in tables.items() for c in cs}
            | {f"population/{k}": _fact_column(k, *fact) for k, fact in self._population.items()},
            ends=self._ends("clients"),
            own=self._table("own"),
            own_ends=self._ends("own"),
        )

    def _table(self, table):
        """All rows of a table that has several a round, by column."""
        rounds = [many[table][0] for many in self._many]
        return {c.name: _stacked(c, [rows[c.name] for rows in rounds]) for c in self.columns[table]}

    def _ends(self, table):
        """(T,) rows of that table after each round; nothing where it has no columns."""
        has_rows = table == "clients" or self.columns[table]
        counts = [many[table][1] for many in self._many] if has_rows else []
        return np.cumsum(counts, dtype=np.int64)


def _fact_column(name, values, unit, description, *dims):
    width = values.shape[1] if values.ndim > 1 else 0
    dim = [*dims, *own_dims(name, 2)][0] if width else ""
    return Column(name, dtype_name(values.dtype), unit, description, width=width, dim=dim)


def _stacked(column, rows):
    empty = np.empty((0, column.width) if column.width else (0,), column.dtype)
    return np.concatenate([empty, *(np.asarray(r, column.dtype) for r in rows)])
