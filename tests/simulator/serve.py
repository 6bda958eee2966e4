"""A simulated fleet: any number of AWS accounts and Azure subscriptions behind one address.

    python tests/simulator/serve.py --aws 10000 --latency-ms 40

prints one line of JSON when it is ready, and serves until its input ends or SIGTERM. What it
counts is at GET /-/stats; POST /-/reset starts the counts anew.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import select
import shutil
import signal
import socket
import ssl
import sys
import tempfile
from pathlib import Path

import fleet_aws
import fleet_azure
import trustme
import uvloop
from answers_aws import HUB_KEY, AwsAnswers, secret_of
from answers_azure import AzureAnswers
from counters import Counters, note_busy
from faults import Fault, read_faults
from http_server import Connection, TlsConnection, Wheel
from simulated_site import Rates, Site

HOST = "127.0.0.1"
NOTE_EVERY = 0.1  # seconds between notes of the CPU time, for the statistics
# Whatever name a client asks by, if something leads it here.
NAMES = (
    "localhost",
    "*.localhost",
    HOST,
    "*.amazonaws.com",
    "management.azure.com",
    "login.microsoftonline.com",
)


def main() -> int:
    options = _options()
    try:
        faults = read_faults(options.faults)
    except (OSError, ValueError) as error:
        print(f"--faults: {error}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="simulator-"))
    try:
        return _run(options, faults, folder)
    finally:
        shutil.rmtree(folder)


def _run(options: argparse.Namespace, faults: dict[bytes, Fault], folder: Path) -> int:
    tls = None if options.plain else _certificate(folder, options.regions)
    port = _reserve(options.port)
    address = f"{'http' if options.plain else 'https'}://{HOST}:{port.getsockname()[1]}"
    counters = Counters(options.processes)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    alive, kept = os.pipe()  # closes when this process ends, however it ends
    ready, told = os.pipe()
    children = []
    for process in range(options.processes):
        child = os.fork()
        if child == 0:
            os.close(kept)
            os.close(ready)
            try:
                _serve(options, faults, tls, counters, process, address, alive, told)
            finally:
                os._exit(0)
        children.append(child)
    os.close(alive)
    os.close(told)
    try:
        for _ in children:
            if not os.read(ready, 1):
                print("a process of the simulator could not start", file=sys.stderr)
                return 1
        print(json.dumps(_description(options, address, folder)), flush=True)
        return _wait(children)
    except KeyboardInterrupt:  # SIGTERM as well
        return 0
    finally:
        os.close(kept)
        for child in children:
            os.waitpid(child, 0)


def _wait(children: list[int]) -> int:
    """Until the input ends; 1 if a child has ended before."""
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], 1.0)
        if readable and not os.read(sys.stdin.fileno(), 4096):
            return 0
        for child in children:
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                print("a process of the simulator has ended", file=sys.stderr)
                return 1


def _serve(
    options: argparse.Namespace,
    faults: dict[bytes, Fault],
    tls: ssl.SSLContext | None,
    counters: Counters,
    process: int,
    address: str,
    alive: int,
    told: int,
) -> None:
    """Serve in this process until the pipe ``alive`` closes."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent says when
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    fleet = fleet_aws.AwsFleet(options.aws, tuple(options.regions), options.buckets, options.groups)
    azure = fleet_azure.AzureFleet(
        options.azure, options.azure_groups, options.azure_storage_accounts, options.azure_page
    )
    rates = Rates(options.throttled, options.errors, options.verify)
    site = Site(AwsAnswers(fleet), AzureAnswers(azure, address), rates, faults, counters, process)
    row = counters.own(process)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        wheel = Wheel(loop, options.latency_ms / 1000, options.jitter_ms / 1000)
        end = asyncio.Event()
        loop.add_reader(alive, end.set)
        listener = socket.create_server(
            (HOST, int(address.rpartition(":")[2])), reuse_port=True, backlog=4096
        )

        def connection() -> Connection:
            if tls is None:
                return Connection(site.respond, wheel, row)
            return TlsConnection(site.respond, wheel, row, tls)

        server = await loop.create_server(connection, sock=listener, backlog=4096)

        def note() -> None:
            note_busy(row)
            loop.call_later(NOTE_EVERY, note)

        note()
        gc.freeze()  # the models and templates stay: not looked through again
        os.write(told, b".")
        await end.wait()
        server.close()

    uvloop.run(run())


def _reserve(port: int) -> socket.socket:
    """A socket that holds the port for the processes, which share it; nothing arrives here."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind((HOST, port))
    return holder


def _certificate(folder: Path, regions: list[str]) -> ssl.SSLContext:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    names = [*NAMES]
    for region in {*regions, "us-east-1"}:  # where AWS's global services answer
        names += [f"*.{region}.amazonaws.com", f"*.s3.{region}.amazonaws.com"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def _description(options: argparse.Namespace, address: str, folder: Path) -> dict[str, object]:
    return {
        "endpoint": address,
        "ca_file": "" if options.plain else str(folder / "ca.pem"),
        "processes": options.processes,
        "aws": {
            "first_account": fleet_aws.account_id(0),
            "accounts": options.aws,
            "regions": options.regions,
            "role": fleet_aws.ROLE,
            "external_id": fleet_aws.EXTERNAL_ID,
            "management_account": fleet_aws.MANAGEMENT,
            "hub": {"access_key_id": HUB_KEY, "secret_access_key": secret_of(HUB_KEY)},
        },
        "azure": {
            "tenant": fleet_azure.TENANT,
            "client_id": fleet_azure.CLIENT_ID,
            "client_secret": fleet_azure.CLIENT_SECRET,
            "authority": address,
            "resource_manager": address,
            "subscriptions": options.azure,
            "first_subscription": fleet_azure.subscription_id(0),
        },
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--aws", type=_count, default=100, help="accounts")
    add("--azure", type=_count, default=0, help="subscriptions")
    add("--latency-ms", type=_positive, default=0.0, help="before each answer")
    add("--jitter-ms", type=_positive, default=0.0, help="added to it, from 0 up to this")
    add("--throttled", type=_fraction, default=0.0, help="fraction of the requests")
    add("--errors", type=_fraction, default=0.0, help="fraction that is answered 500")
    add("--buckets", type=_few, default=11, help="of each account")
    add("--groups", type=_few, default=12, help="security groups of each account and region")
    add("--azure-groups", type=_count, default=20, help="of each subscription")
    add("--azure-storage-accounts", type=_count, default=5, help="of each subscription")
    add("--azure-page", type=_few, default=100, help="items of a page of a list")
    add("--regions", nargs="+", default=["eu-central-1"])
    add("--processes", type=_few, default=1)
    add("--port", type=_count, default=0, help="0 takes a free one")
    add("--plain", action="store_true", help="HTTP without TLS")
    add("--verify", type=_fraction, default=0.01, help="fraction whose signature is recomputed")
    add("--faults", default="", metavar="FILE", help="accounts that misbehave: see faults.py")
    return parser.parse_args()


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 on")
    return int(text)


def _few(text: str) -> int:
    if not 1 <= _count(text) <= 999:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to 999")
    return int(text)


def _positive(text: str) -> float:
    if float(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return float(text)


def _fraction(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return float(text)


if __name__ == "__main__":
    sys.exit(main())
