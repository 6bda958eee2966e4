"""What the peers share: environments of their own, and how they are led to the simulator."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from contender import Job, Outcome, Prepared

PEERS = Path(__file__).parent / "peers"
OLDEST, NEWEST = (3, 11), (3, 12)  # that both peers install on


def environment(name: str, cache: Path) -> Path:
    """The folder of programs of a peer's own virtual environment, made at the first use.

    Its requirements are in ``peers/NAME.txt``; when they change, it is made anew.
    """
    requirements = PEERS / f"{name}.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    folder, mark = cache / name, cache / name / "installed"
    if not mark.is_file() or mark.read_text() != digest:
        print(f"Installing {name} into {folder} (once; minutes) ...", file=sys.stderr)
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([_python(), "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "-qq"]
        subprocess.run([*pip, "--disable-pip-version-check", "-r", requirements], check=True)
        mark.write_text(digest)
    return folder / "bin"


def _python() -> str:
    """An interpreter of a version that the peers know: this one, or one of the system's."""
    for candidate in (sys.executable, "python3.12", "python3.11"):
        path = shutil.which(candidate)
        if path is None:
            continue
        fits = f"not {OLDEST} <= sys.version_info[:2] <= {NEWEST}"
        ask = [path, "-c", f"import sys, venv, ensurepip; sys.exit({fits})"]
        if subprocess.run(ask, check=False, capture_output=True).returncode == 0:
            return path
    raise SystemExit("the peers need Python 3.11 or 3.12, and neither is on PATH")


def variables(job: Job, home: Path) -> dict[str, str]:
    """The environment that leads any AWS SDK to the simulator, with the hub's keys."""
    hub, address = job.aws["hub"], urlsplit(job.endpoint)
    ours = ("AWS_", "PREFECT_", "SUTURE_", "PYTHON")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
        # By this name, since some services put the account's number before it.
        "AWS_ENDPOINT_URL": f"{address.scheme}://localhost:{address.port}",
        "AWS_CA_BUNDLE": job.ca_file,
        "AWS_ACCESS_KEY_ID": hub["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": hub["secret_access_key"],
        "AWS_DEFAULT_REGION": job.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(home),
        "PYTHONPATH": str(PEERS / "resolver"),
    }


@contextmanager
def peer(
    name: str,
    job: Job,
    commands: Callable[[Path, Path], Sequence[tuple[str, Sequence[str | Path]]]],
    outcome: Callable[[Path], Outcome],
) -> Iterator[Prepared]:
    """A peer that is ready to run.

    ``commands(programs, folder)`` gives what to run, each with a name; as many run at once as there
    are cores. ``outcome(folder)`` reads what they wrote. The clock covers the commands from their
    start, since that is how they are used: neither has a part that stays.
    """
    programs = environment(name, Path(job.cache))
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as written:
        folder = Path(written)
        told = variables(job, folder)
        todo = commands(programs, folder)

        def work() -> Outcome:
            with ThreadPoolExecutor(job.processes) as at_once:
                problems = list(at_once.map(lambda one: _run(*one, folder, told), todo))
            found = outcome(folder)
            found.errors = [problem for problem in problems if problem] + found.errors
            return found

        yield Prepared(work)


def _run(name: str, command: Sequence[str | Path], folder: Path, told: Mapping[str, str]) -> str:
    """Run one command; returns the end of what it said when it failed."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        done = subprocess.run(
            command, cwd=folder, env=told, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    if done.returncode == 0:
        return ""
    last = log.read_text(errors="replace").strip()[-400:]
    return f"{name} ended with {done.returncode}: {last}"
