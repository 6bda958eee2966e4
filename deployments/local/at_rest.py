"""Looks for codes and secrets at rest: in every byte of files, and in every row of a database.

Six digits turn up by chance wherever there are enough digits: in hashes, ids, long numbers and the
fractions of seconds. What is counted is what a code that was stored would look like, wherever it
stands: between quotes, after a colon or %3A, or against other words, as JSONB keeps its values; and
the same in the encodings that a program may have given it. Longer secrets leave nothing to chance.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from psycopg import Connection, sql

_DIGITS = b"0123456789"
_ALPHABETS = (_DIGITS + b"abcdef-", _DIGITS + b"ABCDEF-")
# A hash, a UUID or a number in hexadecimal; a short word of its letters is still a word.
LONG = 12
SHORTEST_SECRET = 12  # characters by which a longer secret is known

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]

_DIGIT = "0123456789"
# A digit is 0011xxxx: base64 of digits uses few letters, in turn, by where in a group they stand.
_BASE64 = ("MNO", "DTjz", "AEIMQUYcgk", "wxyz012345")
_ANY_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"


@dataclass(frozen=True, slots=True)
class Encoding:
    """One way to write six digits: the characters at each place, and how it is read back."""

    name: str
    characters: tuple[str, ...]
    read: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Hit:
    """A place where something stands that should not: which, how it is written, and where."""

    secret: str
    encoding: str
    place: int


def _base64_at(offset: int) -> Encoding:
    """Six digits that begin at ``offset`` in a group of three bytes, inside a longer text."""
    letters = [_BASE64[(offset + place) % 4] for place in range(9 if offset else 8)]
    if offset:
        letters[-1] = _ANY_BASE64  # it also holds bits of what follows
    if offset == 2:
        letters[0] += "osw048"  # and this one of what is before

    def read(found: bytes) -> bytes:
        text = b"A" * offset + found.translate(bytes.maketrans(b"-_", b"+/"))
        return base64.b64decode(text + b"A" * (-len(text) % 4))[offset : offset + 6]

    return Encoding(f"base64+{offset}", tuple(letters), read)


PLAIN = Encoding("plain", (_DIGIT,) * 6, lambda found: found)
ENCODINGS = (
    PLAIN,
    Encoding("hexadecimal", ("3", _DIGIT) * 6, lambda found: found[1::2]),
    Encoding("percent", ("%", "3", _DIGIT) * 6, lambda found: found[2::3]),
    Encoding("JSON escapes", ("\\", "u", "0", "0", "3", _DIGIT) * 6, lambda found: found[5::6]),
    Encoding("UTF-16", (_DIGIT, "\0") * 6, lambda found: found[::2]),
    Encoding(
        "in two halves",
        (_DIGIT, _DIGIT, _DIGIT, " ", _DIGIT, _DIGIT, _DIGIT),
        lambda found: found[:3] + found[4:],
    ),
    *(_base64_at(offset) for offset in range(3)),
)


def codes_in(content: bytes, codes: Collection[str]) -> Iterator[Hit]:
    """Where codes of six digits stand in ``content`` otherwise than by chance, in any encoding.

    Every six digits are looked at once, so that thousands of codes cost no more than one.
    """
    data = np.frombuffer(content, dtype=np.uint8)
    for encoding in ENCODINGS:
        length = len(encoding.characters)
        for start in _places(data, encoding.characters).tolist():
            text = encoding.read(content[start : start + length]).decode("latin-1")
            if text in codes and not _by_chance(content, start, start + length, encoding):
                yield Hit(text, encoding.name, start)


def _places(data: Bytes, characters: Sequence[str]) -> Places:
    """Where each of the characters is one of those that may stand there."""
    count = len(data) - len(characters) + 1
    if count <= 0:
        return np.zeros(0, dtype=np.intp)
    allowed = [_table(one) for one in characters]
    found = np.flatnonzero(allowed[0][data[:count]] & allowed[1][data[1 : count + 1]])
    for place, table in enumerate(allowed[2:], start=2):
        found = found[table[data[found + place]]]
    return found


@functools.cache
def _table(characters: str) -> npt.NDArray[np.bool_]:
    table = np.zeros(256, dtype=np.bool_)
    table[list(characters.encode())] = True
    return table


class Secrets:
    """Secrets to look for: longer than what chance writes, in any encoding.

    ``named`` gives for each secret the name that a hit is told by. Of each way to write one, the
    first ``SHORTEST_SECRET`` characters are looked for. Raises ValueError for one that is shorter.
    """

    def __init__(self, named: Mapping[str, str]) -> None:
        self._names: dict[bytes, tuple[str, str]] = {}
        for secret, name in named.items():
            for encoding, needle in _written(secret):
                self._names[needle[:SHORTEST_SECRET]] = (name, encoding)
        needles = np.frombuffer(b"".join(self._names), dtype="<u2").reshape(len(self._names), -1)
        self._pairs = np.zeros((SHORTEST_SECRET // 2, 1 << 16), dtype=np.bool_)
        for place, pairs in enumerate(needles.T):
            self._pairs[place, pairs] = True

    def found_in(self, content: bytes) -> Iterator[Hit]:
        """Where one of them stands in ``content``."""
        data = np.frombuffer(content, dtype=np.uint8).astype(np.uint16)
        pairs = data[:-1] | (data[1:] << 8)
        found = np.flatnonzero(self._pairs[0][pairs])
        found = found[found <= len(content) - SHORTEST_SECRET]
        for place in range(1, len(self._pairs)):
            found = found[self._pairs[place][pairs[found + 2 * place]]]
        for start in found.tolist():
            if named := self._names.get(content[start : start + SHORTEST_SECRET]):
                yield Hit(*named, start)


def _written(secret: str) -> Iterator[tuple[str, bytes]]:
    """The ways to write a secret, each without what differs by where it stands."""
    # The longest part that no quoting touches: a "/" may have become %2F or \\/.
    known = max(re.findall(r"[A-Za-z0-9]+", secret), key=len, default="")
    if len(known) < SHORTEST_SECRET:
        known = secret
    if len(known) < SHORTEST_SECRET:
        raise ValueError(f"a secret of {len(known)} characters cannot be told from chance")
    yield "plain", known.encode()
    raw = secret.encode()[:36]
    yield "hexadecimal", raw.hex().encode()
    yield "upper hexadecimal", raw.hex().upper().encode()
    for offset in range(3):
        yield f"base64+{offset}", base64.b64encode(b"\0" * offset + raw)[4 if offset else 0 :]


def files_below(directory: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below ``directory`` with its content."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.is_symlink():
            try:
                yield path, path.read_bytes()
            except FileNotFoundError:
                continue  # of a process that runs


def bytes_in_files(directory: Path, codes: Collection[str]) -> int:
    """How many bytes of the codes stand in the files below ``directory``."""
    return sum(
        len(hit.secret) for _, content in files_below(directory) for hit in codes_in(content, codes)
    )


def _by_chance(content: bytes, start: int, end: int, encoding: Encoding) -> bool:
    """Whether these are only a part of a longer number, a hash, or a fraction of a second."""
    if encoding is PLAIN and content[max(0, start - 1) : start] == bytes([2 * (end - start) + 3]):
        return False  # how PostgreSQL writes the length of a text of just this size before it
    before = _FLAGS.sub(b"", content[max(0, start - 3 * LONG) : start + 1])[:-1]
    after = _FLAGS.sub(b"", content[end - 1 : end + 3 * LONG])[1:]
    if encoding.name == "hexadecimal":
        longer = 2 * LONG + 1
        return any(_run(before, after, one) + end - start >= longer for one in _ALPHABETS)
    if encoding.name not in ("plain", "in two halves"):
        return False
    if _run(before, after, _DIGITS):
        return True
    if before[-1:] == b"." and before[-2:-1].isdigit():
        return True
    if encoding is not PLAIN:
        return before[-1:] in (b":", b",", b"-")  # 10:00:48.123 456, 1,123 456
    return any(_run(before, after, one) + end - start >= LONG for one in _ALPHABETS)


# One byte between characters that would be a word without it: PostgreSQL's compression puts one
# that tells letters from references before each eight of them.
_FLAGS = re.compile(rb"(?<=[ -~])[^ -~\t\n\r](?=[ -~])")


def _run(before: bytes, after: bytes, alphabet: bytes) -> int:
    """How many characters of ``alphabet`` stand right before and right after a place."""
    left = len(before) - len(before.rstrip(alphabet))
    return left + len(after) - len(after.lstrip(alphabet))


def rows_of(conn: Connection) -> Iterator[tuple[str, bytes]]:
    """Every row of every table that ``conn`` may read, as text, with its table's name.

    Files hold long values compressed, where six digits can be torn apart; rows give them whole.
    """
    tables = conn.execute(
        "SELECT schemaname, tablename FROM pg_tables "
        "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    ).fetchall()
    for schema, table in tables:
        query = sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(schema, table))
        for (row,) in conn.execute(query):
            yield f"{schema}.{table}", row.encode()


def bytes_in_rows(conn: Connection, codes: Collection[str]) -> int:
    """How many bytes of the codes stand in the rows of all tables that ``conn`` may read."""
    if not codes:
        return 0
    return sum(len(hit.secret) for _, row in rows_of(conn) for hit in codes_in(row, codes))
