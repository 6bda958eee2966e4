"""What is decided on a document is decided once, whoever else decides at the same time."""

from __future__ import annotations

import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployments.opener.store import DynamoStore, FileStore, Store, open_store, turn
from tasks.errors import BadInput, CloudError

AtOnce = Callable[..., list[Any]]


def counted(known: dict[str, Any]) -> tuple[dict[str, Any], int]:
    number = known.get("n", 0) + 1
    return {"n": number}, number


@pytest.mark.slow
def test_sixteen_at_once_count_to_sixteen(store: Store, at_once: AtOnce) -> None:
    assert sorted(at_once(lambda: store.update("n", counted))) == list(range(1, 17))


@pytest.mark.slow
def test_a_look_writes_nothing(store: Store) -> None:
    assert store.update("n", lambda known: (None, known)) == {}
    store.update("n", counted)
    assert store.update("n", lambda known: (None, known)) == {"n": 1}
    assert store.update("other", lambda known: (None, known)) == {}


@pytest.mark.slow
def test_turns_are_taken_one_by_one(store: Store, at_once: AtOnce) -> None:
    inside: list[int] = []

    def work() -> int:
        with turn(store, "account"):
            inside.append(1)
            most = len(inside)
            time.sleep(0.01)
            inside.pop()
        return most

    assert at_once(work, 4) == [1] * 4


def test_a_holder_that_died_gives_way(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    dead = turn(store, "account", seconds=0.3)
    dead.__enter__()
    begun = time.monotonic()
    with turn(store, "account", seconds=5):
        assert 0.2 < time.monotonic() - begun < 2


def test_a_turn_that_does_not_come_is_said(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    with (
        turn(store, "account", seconds=5),
        pytest.raises(CloudError, match="turn did not come"),
        turn(store, "account", seconds=0.2),
    ):
        pass


COUNT = """
import sys
from pathlib import Path
from deployments.opener.store import FileStore
store = FileStore(Path(sys.argv[1]))
for _ in range(50):
    store.update("n", lambda known: ({"n": known.get("n", 0) + 1}, None))
"""


@pytest.mark.slow
def test_a_folder_is_shared_by_processes_and_survives_them(tmp_path: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path)]) for _ in range(3)]
    assert [one.wait(60) for one in running] == [0, 0, 0]
    assert FileStore(tmp_path).update("n", lambda known: (None, known)) == {"n": 150}


def test_only_its_owner_reads_the_folder(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "deep" / "store")
    store.update("n", counted)
    assert stat.S_IMODE((tmp_path / "deep" / "store").stat().st_mode) == 0o700
    (file,) = (tmp_path / "deep" / "store").glob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_past_its_time_is_forgotten_and_the_rest_stays(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.update("old", lambda _: ({"expires": time.time() - 1}, None))
    store.update("new", lambda _: ({"expires": time.time() + 60}, None))
    store.update("for ever", counted)
    store.forget_expired()
    assert store.update("old", lambda known: (None, known)) == {}
    assert store.update("new", lambda known: (None, known)) != {}
    assert store.update("for ever", lambda known: (None, known)) == {"n": 1}


@pytest.mark.attack
def test_a_damaged_document_is_never_taken_for_an_empty_one(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.update("n", counted)
    (file,) = tmp_path.glob("*.json")
    file.write_text("{")
    with pytest.raises(CloudError, match="damaged"):
        store.update("n", counted)


@pytest.mark.attack
def test_names_lead_nowhere_else(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    store.update("../../etc/passwd\0", counted)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.slow
def test_addresses(tmp_path: Path, table: str) -> None:
    assert isinstance(open_store((tmp_path / "s").as_uri()), FileStore)
    assert isinstance(open_store(table), DynamoStore)
    for wrong in ("", "s3://bucket/key", "file://", "dynamodb://region", "/var/lib/opener"):
        with pytest.raises(BadInput, match="Write file:///folder"):
            open_store(wrong)
