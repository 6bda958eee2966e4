"""A code that was stored is found wherever it stands; chance is not taken for it."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.local.at_rest import Secrets, bytes_in_files, bytes_in_rows, codes_in

CODE = "730518"
UUID = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"

STORED = {
    "JSON": json.dumps({"decision": "approve", "code": CODE}),
    "JSON with a number": json.dumps({"code": int(CODE), "a": 1}),
    "SQL": f"INSERT INTO flow_run_input (value) VALUES ('{CODE}')",
    "a log line": f"2026-11-23 19:05:48.123 UTC [4711] LOG: code {CODE} accepted",
    "an external id": f"{UUID}:{CODE}",
    "an external id in an address": f"ExternalId={quote(f'{UUID}:{CODE}', safe='')}&Action=x",
    "an escaped quote": json.dumps(json.dumps({"code": CODE})),
    "the end of a sentence": f"The code is {CODE}.",
    "the beginning of a file": CODE + "\n",
    "a value in JSONB, between its neighbours": f"codedecision{CODE}approveAda",
    "before a word of hexadecimal letters": f"{CODE}Dead",
}
BY_CHANCE = {
    "a longer number": f"1{CODE}",
    "an account": f"47{CODE}1122",
    "a fraction of a second": f"19:05:48.{CODE}+00",
    "a UUID": f"6f9619ff-8b86-4d01-b42d-0{CODE}4fc9a",
    "a hash": f"9b{CODE}e1c2a4f7d3b8c6a5",
    "an upper-case hash": f"9B{CODE}E1C2A4F7D3B8C6A5",
}


@pytest.mark.parametrize("where", STORED)
def test_a_stored_code_is_found(tmp_path: Path, where: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_text(STORED[where])
    assert bytes_in_files(tmp_path, {CODE, "000001"}) == len(CODE)


@pytest.mark.parametrize("where", BY_CHANCE)
def test_digits_that_only_happen_to_be_there_are_not(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text(BY_CHANCE[where])
    assert bytes_in_files(tmp_path, {CODE}) == 0


@pytest.mark.parametrize(
    "content",
    [
        b"097b6497\x004d%s\x00f03c7b0a\x0480\x11jce",
        b"6-11-27T\x0009:16:47\x00.%sZ\x005a8da739",
        b"2026\x00-11-27T0\x009:16:42.\x00%sZ5\x0029fb",
        b"`%s\x00562db4`",
        b"took 0.123\x00%s",
    ],
)
def test_nor_are_those_that_compression_has_put_a_byte_beside(content: bytes) -> None:
    """PostgreSQL's compression puts a byte of flags before each eight letters."""
    assert list(codes_in(content % CODE.encode(), {CODE})) == []
    quoted = b'6-11-27T\x00" code": \x00"%s",\x00 "by": '
    assert len(list(codes_in(quoted % CODE.encode(), {CODE}))) == 1


@pytest.mark.parametrize("after", [b"\x00", b"\x1bAda", b"1", b"approve"])
def test_a_code_in_a_record_of_the_database_is_found(tmp_path: Path, after: bytes) -> None:
    """PostgreSQL writes one byte of length, the text, and the next column, maybe like a digit."""
    record = b"\x01\x00\xd2\x07\x02\x00\x0f" + CODE.encode() + after + b"\x00\x00\x7f"
    (tmp_path / "000000010000000000000001").write_bytes(b"\x00" * 5000 + record)
    assert bytes_in_files(tmp_path, {CODE}) == len(CODE)


def test_every_place_counts(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"{CODE} {CODE}\n0.{CODE} {CODE}")
    assert bytes_in_files(tmp_path, {CODE}) == 3 * len(CODE)


def halves(code: str) -> bytes:
    return f"{code[:3]} {code[3:]}".encode()


WRITTEN = {
    "hexadecimal": lambda code: code.encode().hex().encode(),
    "percent": lambda code: "".join(f"%3{digit}" for digit in code).encode(),
    "JSON escapes": lambda code: "".join(f"\\u003{digit}" for digit in code).encode(),
    "UTF-16": lambda code: code.encode("utf-16-le"),
    "in two halves": halves,
}


@pytest.mark.parametrize("encoding", WRITTEN)
def test_an_encoded_code_is_found(encoding: str) -> None:
    content = b'{"code": "' + WRITTEN[encoding](CODE) + b'"}'
    assert [(hit.secret, hit.encoding) for hit in codes_in(content, {CODE, "000001"})] == [
        (CODE, encoding)
    ]
    assert list(codes_in(content, {"000001"})) == []


@given(
    code=st.from_regex(r"[0-9]{6}", fullmatch=True),
    before=st.binary(max_size=5),
    after=st.binary(max_size=5),
    encode=st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]),
)
def test_a_code_inside_of_base64_is_found_wherever_it_stands(
    code: str, before: bytes, after: bytes, encode: Callable[[bytes], bytes]
) -> None:
    content = b'"' + encode(before + code.encode() + after) + b'"'
    assert code in {hit.secret for hit in codes_in(content, {code})}


@pytest.mark.parametrize(
    "content",
    [f"9b{CODE.encode().hex()}e1c2a4f7d3b8c6a5", "10:00:48.730 518", "1,730 518", "5730 518"],
)
def test_an_encoding_by_chance_is_none(content: str) -> None:
    assert list(codes_in(content.encode(), {CODE})) == []


SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        quote(SECRET, safe=""),
        json.dumps(SECRET).replace("/", "\\/"),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        *(base64.b64encode(b"x" * before + SECRET.encode()).decode() for before in range(5)),
    ],
)
def test_a_longer_secret_is_found_in_any_encoding(written: str) -> None:
    wanted = Secrets({SECRET: "the key", "q" * 40: "another"})
    found = list(wanted.found_in(b"\x00 key=" + written.encode() + b"&x"))
    assert {hit.secret for hit in found} == {"the key"}
    assert list(wanted.found_in(b"")) == list(wanted.found_in(b"x" * 11)) == []


def test_a_short_secret_cannot_be_looked_for() -> None:
    with pytest.raises(ValueError, match="6 characters cannot be told from chance"):
        Secrets({CODE: "a code"})


@pytest.mark.slow
def test_rows_tell_what_files_hold_compressed(conn: psycopg.Connection) -> None:
    page = "".join(f"{number} changes, {number * 7} of them large. " for number in range(400))
    assert CODE.encode() not in zlib.compress((page + CODE).encode())
    conn.execute("CREATE TABLE pages (id int, page text, answer jsonb)")
    assert bytes_in_rows(conn, {CODE}) == 0
    conn.execute("INSERT INTO pages VALUES (1, %s, %s)", (page + f"code {CODE}", "{}"))
    conn.execute(
        "INSERT INTO pages VALUES (2, '', %s)", (json.dumps({"code": CODE, "left": "10.0.0.0"}),)
    )
    conn.execute("INSERT INTO pages VALUES (3, %s, '{}')", (f"at 10:00:00.{CODE}",))
    assert bytes_in_rows(conn, {CODE}) == 2 * len(CODE)
    assert bytes_in_rows(conn, set()) == 0
