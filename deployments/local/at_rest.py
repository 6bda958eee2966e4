"""Looks for codes at rest: in every byte of a directory's files, and in every row of a database.

Six digits turn up by chance wherever there are enough digits: in hashes, ids, long numbers and the
fractions of seconds. What is counted is what a code that was stored would look like, wherever it
stands: between quotes, after a colon or %3A, or against other words, as JSONB keeps its values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from psycopg import Connection, sql

_DIGITS = frozenset(b"0123456789")
_ALPHABETS = (frozenset(b"0123456789abcdef-"), frozenset(b"0123456789ABCDEF-"))
# A hash, a UUID or a number in hexadecimal; a short word of its letters is still a word.
LONG = 12


def bytes_in_files(directory: Path, codes: Collection[str]) -> int:
    """How many bytes of the codes stand in the files below ``directory``."""
    needles = [code.encode() for code in codes]
    found = 0
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            for needle in needles:
                found += len(needle) * sum(1 for _ in places(content, needle))
    return found


def places(content: bytes, code: bytes) -> Iterator[int]:
    """Where ``code`` stands in ``content`` otherwise than by chance."""
    start = content.find(code)
    while start >= 0:
        if not _by_chance(content, start, start + len(code)):
            yield start
        start = content.find(code, start + 1)


def _by_chance(content: bytes, start: int, end: int) -> bool:
    before, after = content[start - 1 : start], content[end : end + 1]
    if before == bytes([2 * (end - start) + 3]):
        return False  # how PostgreSQL writes the length of a text of just this size before it
    if (before and before[0] in _DIGITS) or (after and after[0] in _DIGITS):
        return True  # a part of a longer number
    if before == b"." and content[start - 2 : start - 1].isdigit():
        return True  # a fraction, mostly of a second
    return any(_run(content, start, end, alphabet) >= LONG for alphabet in _ALPHABETS)


def _run(content: bytes, start: int, end: int, alphabet: frozenset[int]) -> int:
    """How long the word of ``alphabet`` round a place is, counted up to what makes it long."""
    while end < len(content) and content[end] in alphabet and end - start < LONG:
        end += 1
    while start > 0 and content[start - 1] in alphabet and end - start < LONG:
        start -= 1
    return end - start


def bytes_in_rows(conn: Connection, codes: Collection[str]) -> int:
    """How many bytes of the codes stand in the rows of all tables that ``conn`` may read.

    Files hold long values compressed, where six digits can be torn apart; rows give them whole.
    """
    tables = conn.execute(
        "SELECT schemaname, tablename FROM pg_tables "
        "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    ).fetchall()
    pattern = "|".join(sorted(codes))
    found = 0
    for schema, table in tables if codes else ():
        query = sql.SQL("SELECT t::text FROM {} AS t WHERE t::text ~ %s").format(
            sql.Identifier(schema, table)
        )
        for (row,) in conn.execute(query, (pattern,)):
            content = row.encode()
            for code in codes:
                found += len(code) * sum(1 for _ in places(content, code.encode()))
    return found
