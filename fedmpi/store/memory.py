"""The store in memory: the twin of RunFile without a file."""

import warnings

import numpy as np

from fedmpi.core.errors import CheckpointError
from fedmpi.store.attrs import own_attrs, plain, same_keys
from fedmpi.store.rows import (Column, Run, check_truncate, checked_columns, checked_round,
                               dtype_name, own_dims)
from fedmpi.store.states import check_save, flattened, unflattened


class MemoryStore:
    """A run held in memory, for notebooks and tests; the same interface and bits as RunFile."""

    # Without a shelf, clients' states stay in the run's state.
    shelf = None

    def __init__(self, attrs, rounds, clients, population, partition, own=()):
        self.columns = {
            "rounds": checked_columns(rounds),
            "clients": checked_columns(clients),
            "own": checked_columns(own),
        }
        self._attrs = plain(own_attrs(attrs))
        self.run_id = self._attrs["run_id"]
        # {name: (values, unit, description, dimension of each further axis)}
        self._population = {}
        for name, (values, *texts) in population.items():
            self._population[name] = (np.array(values), *texts)
        self._partition = tuple(np.array(array) for array in partition)
        # One dict of values a round; one ``{table: (values, number of rows)}`` a round.
        self._rows, self._many = [], []
        self._sessions = []
        # ``{round: (entries, arrays)}`` of ``flattened``.
        self._saved = {}

    @classmethod
    def create(cls, path, attrs, rounds, clients, population, partition, own=(), *, coordinates=None, expected=None):
        """A new store, from RunFile's arguments. ``path``, ``coordinates`` and ``expected`` shape a file, and have no
        meaning here."""
        return cls(attrs, rounds, clients, population, partition, own)

    @property
    def rounds(self):
        """Number of committed rounds."""
        return len(self._rows)

    def append(self, row, client_rows, own_rows=None):
        """Adds one round: a row of /rounds, C rows of /clients, and those of /own. ValueError, and no change, if a
        value does not fit."""
        row, many = checked_round(self.columns, row, client_rows, own_rows)
        self._rows.append(row)
        self._many.append(many)

    def truncate(self, rounds):
        """Forgets all but the first ``rounds`` rounds, and the states saved after them."""
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
        self._saved[round] = entries, _copies(arrays)
        later = [number for number in self._saved if number > round]
        up_to_now = sorted(number for number in self._saved if number <= round)
        for number in later + up_to_now[:-keep]:
            del self._saved[number]

    def settle(self):
        """Nothing to wait for."""

    def pack(self):
        """Nothing to pack."""

    def load(self, warn=warnings.warn):
        """``(state, round)`` of the newest save."""
        if not self._saved:
            raise CheckpointError("this run has no checkpoint yet")
        newest = max(self._saved)
        entries, arrays = self._saved[newest]
        return unflattened(entries, _copies(arrays)), newest

    def run(self):
        """The run so far, as ``read_run`` gives it."""
        rounds = {}
        for column in self.columns["rounds"]:
            values = [[row[column.name]] for row in self._rows]
            rounds[column.name] = _stacked(column, values)
        return Run(
            attrs=plain(self._attrs),
            rounds=rounds,
            clients=self._table("clients"),
            population={name: fact[0].copy() for name, fact in self._population.items()},
            partition=tuple(array.copy() for array in self._partition),
            sessions=plain(self._sessions),
            columns=self._all_columns(),
            ends=self._ends("clients"),
            own=self._table("own"),
            own_ends=self._ends("own"),
        )

    def _all_columns(self):
        """``{table/name: Column}`` of tables and population."""
        columns = {}
        for table, group in self.columns.items():
            for column in group:
                columns[f"{table}/{column.name}"] = column
        for name, fact in self._population.items():
            columns[f"population/{name}"] = _fact_column(name, *fact)
        return columns

    def _table(self, table):
        """All rows of a table with several rows a round, by column."""
        rounds = [many[table][0] for many in self._many]
        stacked = {}
        for column in self.columns[table]:
            values = [rows[column.name] for rows in rounds]
            stacked[column.name] = _stacked(column, values)
        return stacked

    def _ends(self, table):
        """(T,) rows of the table after each round; (0,) for /own without columns."""
        counts = []
        if table == "clients" or self.columns[table]:
            counts = [many[table][1] for many in self._many]
        # Without rounds, too, of int64.
        return np.cumsum(counts, dtype=np.int64)


def _copies(arrays):
    """Copies of the arrays; None, for a plain value, stays None."""
    copies = []
    for array in arrays:
        if array is not None:
            array = array.copy()
        copies.append(array)
    return copies


def _fact_column(name, values, unit, description, *dims):
    dtype = dtype_name(values.dtype)
    width, dim = 0, ""
    if values.ndim > 1:
        width = values.shape[1]
        named_dims = [*dims, *own_dims(name, 2)]
        dim = named_dims[0]
    return Column(name, dtype, unit, description, width=width, dim=dim)


def _stacked(column, rows):
    dtype = column.dtype
    shape = (0,)
    if column.width:
        shape = (0, column.width)
    # First an empty array: a run without rounds has dtype and width, too.
    empty = np.empty(shape, dtype)
    arrays = [empty]
    for values in rows:
        array = np.asarray(values, dtype)
        arrays.append(array)
    return np.concatenate(arrays)
