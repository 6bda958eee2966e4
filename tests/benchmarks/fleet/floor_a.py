"""Floor A: raw aiohttp, signed by hand. One shared session over TLS for each of its processes."""

from __future__ import annotations

import aiohttp
import uvloop
from contender import Job, Outcome, contend, worker_processes
from fifty_calls import BareScan
from yarl import URL

from tasks.clouds.transport import trust


def scan(job: Job, accounts: list[str]) -> Outcome:
    return uvloop.run(_scan(job, accounts))


async def _scan(job: Job, accounts: list[str]) -> Outcome:
    connector = aiohttp.TCPConnector(
        limit=job.connections, ssl=trust(job.ca_file), keepalive_timeout=30
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    ) as session:

        async def send(
            method: str, target: str, headers: dict[str, str], body: bytes
        ) -> tuple[int, bytes]:
            url = URL(job.endpoint + target, encoded=True)
            async with session.request(method, url, headers=headers, data=body or None) as answer:
                return answer.status, await answer.read()

        return await BareScan(job, send).run(accounts)


if __name__ == "__main__":
    contend(lambda job: worker_processes(job, scan))
