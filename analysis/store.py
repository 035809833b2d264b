"""Results of one study in one SQLite file: written by one process, read by any number while it writes.

A row is written in a transaction of its own or together with others that finished at the same time; what is
in the file stays there when the process is killed. Write-ahead logging is on while a study runs; afterwards
the file is a single one again, that can be copied and kept.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from eoc_theory.base import checks
from eoc_theory.errors import EOCError

from .locking import LockedError, exclusive

#: What tells a results file from any other SQLite file: "EOCr".
APPLICATION = 0x454F4372
#: Between the name of a store and the process that is making it.
_NEW = ".new-"
#: Raised when tables or the meaning of a column change.
SCHEMA = 1


class StoreError(EOCError):
    """A results file cannot be used: the reason in one line. What it holds is left as it was."""


@dataclass(frozen=True)
class Row:
    """A finished piece of work.

    Attributes:
        configuration: canonical JSON of all that was asked but for the seed.
        hash: its SHA-256.
        seed: the seed.
        measure: what was measured.
        result: JSON; nan is null, the infinities are "inf" and "-inf".
        versions: JSON: versions of the packages that the result rests on.
        device: "cpu", or the GPU's name.
        seconds: how long it took.
        finished: when, UTC.
    """

    configuration: str
    hash: str
    seed: int
    measure: str
    result: str
    versions: str
    device: str
    seconds: float
    finished: str

    @property
    def is_sound(self) -> bool:
        """Whether it is as it was written: configuration and result are JSON, and the hash is right."""
        try:
            asked, found = _parsed(self.configuration), _parsed(self.result)
            _parsed(self.versions)
            whole = hashlib.sha256(self.configuration.encode()).hexdigest() == self.hash
        except (TypeError, ValueError, AttributeError):
            return False
        return whole and type(self.seed) is int and bool(found) and asked.get("measure") == self.measure

    @property
    def asked(self) -> dict[str, Any]:
        """The configuration."""
        return json.loads(self.configuration)

    @property
    def found(self) -> dict[str, Any]:
        """The result."""
        return json.loads(self.result)


def _parsed(text: str) -> dict[str, Any]:
    """A JSON object. Raises ValueError for anything else, nan and the infinities included."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    found = json.loads(text, parse_constant=refuse)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


_COLUMNS = tuple(one.name for one in fields(Row))
_TABLES = f"""
CREATE TABLE study (name TEXT NOT NULL);
CREATE TABLE results (
    configuration TEXT NOT NULL,
    hash TEXT NOT NULL,
    seed INTEGER NOT NULL,
    measure TEXT NOT NULL,
    result TEXT NOT NULL,
    versions TEXT NOT NULL,
    device TEXT NOT NULL,
    seconds REAL NOT NULL,
    finished TEXT NOT NULL,
    PRIMARY KEY (hash, seed)
);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
"""


class Store:
    """An open results file; made by `reading` and `writing`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, study: str) -> None:
        self.path, self.study = path, study
        self._connection = connection

    def keys(self) -> set[tuple[str, int]]:
        """(hash of the configuration, seed) of every row that is sound: of what is done."""
        return {(row.hash, row.seed) for row in self._all() if row.is_sound}

    def drop_damaged(self) -> int:
        """Remove the rows that are not sound, to be done again; how many there were."""
        with _plainly(self.path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            numbered = self._connection.execute(f"SELECT rowid, {', '.join(_COLUMNS)} FROM results")
            damaged = [(number,) for number, *values in numbered if not Row(*values).is_sound]
            self._connection.executemany("DELETE FROM results WHERE rowid = ?", damaged)
        return len(damaged)

    def __len__(self) -> int:
        with _plainly(self.path):
            return self._connection.execute("SELECT count(*) FROM results").fetchone()[0]

    def add(self, rows: Iterable[Row]) -> None:
        """Write the rows, all or none of them.

        Raises:
            StoreError: a full disk, say, or a row that is there already.
        """
        marks = ", ".join("?" * len(_COLUMNS))
        with _plainly(self.path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                f"INSERT INTO results VALUES ({marks})", [astuple(row) for row in rows]
            )

    def rows(self, measure: str | None = None) -> Iterator[Row]:
        """The rows, of one measure or all, in an order that does not depend on when they were written.

        Raises:
            StoreError: one of them is damaged.
        """
        for row in self._all(measure):
            if not row.is_sound:
                raise StoreError(
                    f"store {str(self.path)!r} has a damaged row (measure {row.measure!r}, seed "
                    f"{row.seed!r}): running the study with --resume does it again"
                )
            yield row

    def _all(self, measure: str | None = None) -> Iterator[Row]:
        query = f"SELECT {', '.join(_COLUMNS)} FROM results"
        if measure is not None:
            query += " WHERE measure = :measure"
        query += " ORDER BY configuration, seed"
        with _plainly(self.path):
            for values in self._connection.execute(query, {"measure": measure}):
                yield Row(*values)

    def digest(self) -> str:
        """SHA-256 of all configurations, seeds and results: equal for equal bits.

        Left out is what differs from run to run: seconds, versions, devices.
        """
        whole = hashlib.sha256()
        for row in self.rows():
            whole.update(f"{row.configuration}\n{row.seed}\n{row.result}\n".encode())
        return whole.hexdigest()


@contextmanager
def reading(path: Path | str) -> Iterator[Store]:
    """The results file `path`, to read; a study may be writing to it.

    Raises:
        StoreError: no such file, or not a results file.
    """
    path = checks.path("store", path)
    if not path.is_file():
        raise StoreError(f"store {str(path)!r} {'is not a file' if path.exists() else 'does not exist'}")
    _check_names(path)
    with _plainly(path), closing(_connect(path, "ro")) as connection:
        yield Store(path, connection, _checked(path, connection))


@contextmanager
def writing(path: Path | str, study: str) -> Iterator[Store]:
    """The results file `path` of the study of that name, to write; made where there is none.

    Raises:
        StoreError: not a results file, one of another study or schema, or one that is being written to.
    """
    spelled, path = path, Path(os.path.realpath(checks.path("store", path)))
    with ExitStack() as opened:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                _create(path, study)
            elif not path.is_file():
                raise StoreError(f"store {str(spelled)!r} is not a file")
            opened.enter_context(exclusive(path))
            _tidy(path)
            # Looked at before it is opened for writing: a file of somebody else's is not touched.
            with reading(path) as found:
                if found.study != study:
                    raise StoreError(
                        f"store {str(path)!r} holds results of study {found.study!r}, not of {study!r}"
                    )
        except LockedError as held:
            raise StoreError(
                f"store {str(spelled)!r} is being written to by {held}: let that end first"
            ) from None
        except OSError as error:
            raise StoreError(f"store {str(spelled)!r} cannot be used: {error.strerror or error}") from None
        opened.enter_context(_plainly(path))
        connection = opened.enter_context(closing(_connect(path, "rw")))
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        # Safe against a killed process; a power cut may cost the last rows, never the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        yield Store(path, connection, study)
        _fold(connection)


def _fold(connection: sqlite3.Connection) -> None:
    """Back to a single file. Somebody who is reading hinders that, which does no harm."""
    try:
        connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.OperationalError:
        pass


def _create(path: Path, study: str) -> None:
    """Made beside its place and then put there: a store is whole or not there at all.

    Of two processes that make one at the same time the first puts its own there, and both go on with that.
    """
    new = path.with_name(f"{path.name}{_NEW}{os.getpid()}-{threading.get_ident()}")
    new.unlink(missing_ok=True)
    try:
        with _plainly(path), closing(_connect(new, "rwc")) as connection:
            connection.executescript(_TABLES)
            connection.execute("INSERT INTO study VALUES (?)", (study,))
        try:
            os.link(new, path)
        except FileExistsError:
            pass
        except OSError:  # file systems without hard links
            if not path.exists():
                new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _tidy(path: Path) -> None:
    """Remove what processes left that were killed while they made the store; it is locked and there now."""
    for left in path.parent.glob(glob.escape(path.name) + f"{_NEW}*"):
        with suppress(OSError):
            left.unlink()


def _check_names(path: Path) -> None:
    """Refuse a store of several names (hard links) whose last rows lie in a journal beside another of them.

    SQLite looks for them under the name that it is given, and would write over what they belong to.
    """
    try:
        if os.stat(path).st_nlink < 2:
            return
        with open(path, "rb") as file:
            journalled = file.read(20)[18:19] == b"\x02"
    except OSError as error:
        raise StoreError(f"store {str(path)!r} cannot be used: {error.strerror or error}") from None
    if journalled and not Path(f"{os.path.realpath(path)}-wal").exists():
        raise StoreError(
            f"store {str(path)!r} has other names (hard links), and was being written to under one of them: "
            "its last rows lie beside that name, so use that one first"
        )


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # isolation_level None: transactions begin where the code says so.
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)


def _checked(path: Path, connection: sqlite3.Connection) -> str:
    """The name of the study whose results these are."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise StoreError(f"store {str(path)!r} is not a results file of a study")
    schema = connection.execute("PRAGMA user_version").fetchone()[0]
    if schema != SCHEMA:
        raise StoreError(
            f"store {str(path)!r} has schema {schema}, this version reads schema {SCHEMA}: "
            "use the version that wrote it"
        )
    columns = tuple(row[1] for row in connection.execute("PRAGMA table_info(results)"))
    if columns != _COLUMNS:
        raise StoreError(
            f"store {str(path)!r} is damaged: its results have columns {columns}, not {_COLUMNS}"
        )
    names = connection.execute("SELECT name FROM study").fetchall()
    if len(names) != 1 or not isinstance(names[0][0], str):
        raise StoreError(
            f"store {str(path)!r} is damaged: it must say the one study whose results it holds, "
            f"got {[name for name, *_ in names[:3]]}"
        )
    return names[0][0]


@contextmanager
def _plainly(path: Path) -> Iterator[None]:
    """SQLite's errors as one line."""
    try:
        yield
    except sqlite3.Error as error:
        reason = str(error)
        if isinstance(error, sqlite3.DatabaseError) and "not a database" in reason:
            raise StoreError(f"store {str(path)!r} is not a results file of a study ({reason})") from None
        raise StoreError(f"store {str(path)!r} cannot be used: {reason}") from None
