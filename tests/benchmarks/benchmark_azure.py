"""Prints what reading Azure costs this process: clients side by side, and lists against the graph.

Run this file with Python. The emulator is a process of its own: its CPU does not count.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import httpx
import orjson

from deployments.local.azure.graph import GraphOptions
from deployments.local.azure.network import SecurityGroup
from deployments.local.azure.server import EmulatedAzure
from tasks.clouds import azure_collect
from tasks.clouds.azure_api import AzureApi
from tasks.clouds.scanner import Scanner
from tasks.clouds.transport import Limits
from tasks.inventory import AzureSource, Inventory
from tasks.model import Account, Cloud, in_order
from tasks.rules import RULES

GROUPS, ROUNDS, SUBSCRIPTIONS = 100, 20, 300
NSG = azure_collect.COLLECTORS["azure.network.security_group"]


def serve(folder: str) -> None:
    """The emulator, until its input ends: one subscription has a hundred groups."""
    options = GraphOptions(quota=1_000_000)
    with EmulatedAzure(
        SUBSCRIPTIONS, 7, Path(folder), failing=False, page_size=1000, graph=options
    ) as azure:
        full = azure.description["subscriptions"][0]["id"]
        groups = [r for r in azure.tenant.resources(full) if isinstance(r, SecurityGroup)]
        for number in range(GROUPS - len(groups)):
            like = groups[number % len(groups)]
            name = f"{like.name}-{number}"
            copied = replace(like, name=name, id=like.id.replace(like.name, name))
            azure.tenant.add_resource(copied)
        print(json.dumps(azure.description), flush=True)
        sys.stdin.read()


@contextmanager
def emulator() -> Iterator[tuple[AzureSource, list[str]]]:
    """The source and its subscriptions, the full one first."""
    with tempfile.TemporaryDirectory(prefix="suture-benchmark-") as folder:
        command = [sys.executable, str(Path(__file__).resolve()), "--serve", folder]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdin
        assert child.stdout
        try:
            told = json.loads(child.stdout.readline())
            os.environ["BENCHMARK_AZURE_SECRET"] = told["scanner"]["client_secret"]
            source = AzureSource(
                name="contoso",
                tenant=told["tenant"],
                client_id=told["scanner"]["client_id"],
                client_secret_env="BENCHMARK_AZURE_SECRET",
                authority=told["authority"],
                resource_manager=told["resource_manager"],
                audience=told["audience"],
                ca_file=str(Path(folder) / "ca.pem"),
            )
            yield source, [one["id"] for one in told["subscriptions"] if one["state"] == "Enabled"]
        finally:
            child.stdin.close()
            child.wait(timeout=30)


async def cpu_ms(read: Callable[[], Awaitable[int]]) -> float:
    """CPU of this process for one call of ``read``, in ms, after one to warm up."""
    assert await read() == GROUPS
    began = time.process_time()
    for _ in range(ROUNDS):
        await read()
    return (time.process_time() - began) / ROUNDS * 1000


async def clients(source: AzureSource, full: str) -> dict[str, float]:
    """CPU ms to list a hundred groups, by what it is read with."""
    from azure.identity.aio import ClientSecretCredential
    from azure.mgmt.network.aio import NetworkManagementClient

    path = f"/subscriptions/{full}/providers/{NSG.type}"
    told: dict[str, float] = {}
    async with AzureApi(source) as api:

        async def aiohttp_items() -> int:
            return len([item async for item in api.items(path, NSG.api_version)])

        async def suture() -> int:
            found, _ = await azure_collect.collect(api, full, [NSG.kind])
            return len(found)

        told["aiohttp + orjson"] = await cpu_ms(aiohttp_items)
        told["… as Suture's resources"] = await cpu_ms(suture)
        token = await api._fresh_token()

    trusted = ssl.create_default_context(cafile=source.ca_file)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(verify=trusted, headers=headers) as client:
        address = f"{source.resource_manager}{path}?api-version={NSG.api_version}"

        async def httpx_items() -> int:
            return len(orjson.loads((await client.get(address)).content)["value"])

        told["httpx + orjson"] = await cpu_ms(httpx_items)

    async with (
        ClientSecretCredential(
            source.tenant,
            source.client_id,
            os.environ["BENCHMARK_AZURE_SECRET"],
            authority=source.authority,
            disable_instance_discovery=True,
            connection_verify=source.ca_file,
        ) as credential,
        NetworkManagementClient(
            credential,
            full,
            base_url=source.resource_manager,
            credential_scopes=[f"{source.audience.rstrip('/')}/.default"],
            connection_verify=source.ca_file,
        ) as network,
    ):

        async def sdk_items() -> int:
            return len([item async for item in network.network_security_groups.list_all()])

        told["azure-mgmt-network aio"] = await cpu_ms(sdk_items)
    return told


async def fleet(source: AzureSource, subscriptions: list[str], graph: bool) -> tuple[float, float]:
    """CPU ms and calls for each subscription of a fleet scan; one rule a kind, which always passes,
    so that reading is what is measured."""
    rules = [
        replace(next(rule for rule in RULES if rule.kind == kind), passes=lambda _resource: True)
        for kind in azure_collect.COLLECTORS
    ]
    accounts = [Account(Cloud.AZURE, one, source=source.name) for one in subscriptions]
    inventory = Inventory(azure=(replace(source, graph=graph),))
    async with Scanner(inventory, Limits(), rules) as scanner:
        await asyncio.gather(*(scanner.scan(account) for account in accounts[:64]))  # connects
        before, began = scanner.calls, time.process_time()
        async for scan in scanner.scan_all(accounts):
            assert not scan.failed, scan.failed
        cpu = (time.process_time() - began) * 1000
        return cpu / len(accounts), (scanner.calls - before) / len(accounts)


async def shaping(source: AzureSource, full: str) -> tuple[float, float]:
    """CPU ms to settle a hundred groups in one pass, and in two as before."""
    path = f"/subscriptions/{full}/providers/{NSG.type}"
    async with AzureApi(source) as api:
        items = [item async for item in api.items(path, NSG.api_version)]

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without(part) for k, part in value.items() if k not in NSG.volatile}
        return [without(part) for part in value] if isinstance(value, list) else value

    def timed(settle: Callable[[Any], Any]) -> float:
        began = time.process_time()
        for _ in range(ROUNDS):
            for item in items:
                settle(item["properties"])
        return (time.process_time() - began) / ROUNDS * 1000

    one = timed(lambda value: azure_collect.settled(value, NSG.volatile))
    return one, timed(lambda value: in_order(without(value)))


def main() -> None:
    with emulator() as (source, subscriptions):
        told = asyncio.run(clients(source, subscriptions[0]))
        fastest = told["aiohttp + orjson"]
        print(f"CPU to list {GROUPS} security groups, over TLS")
        for name, cost in told.items():
            print(f"  {name:26} {cost:8.2f} ms   {cost / fastest:6.1f} x")
        one, two = asyncio.run(shaping(source, subscriptions[0]))
        print(f"CPU to settle them: {one:.2f} ms in one pass, {two:.2f} ms in two")
        print(f"CPU and calls for each of {SUBSCRIPTIONS} subscriptions, two kinds")
        fleets = {
            how: asyncio.run(fleet(source, subscriptions[1:], graph=how == "graph"))
            for how in ("lists", "graph")
        }
        base = fleets["lists"][0]
        for how, (cost, calls) in fleets.items():
            print(f"  {how:26} {cost:8.2f} ms   {cost / base:6.2f} x   {calls:.2f} calls")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        main()
