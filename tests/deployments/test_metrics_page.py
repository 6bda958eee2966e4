"""The page of metrics and health, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deployments.beside import served
from deployments.metrics_page import metrics_page
from tasks.model import Cloud
from tasks.reacting.metrics import Metrics


class Listener:
    """One that says how it is."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.ailment = ""


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def http(listener: Listener) -> AsyncIterator[httpx.AsyncClient]:
    app = metrics_page(listener.metrics.registry, lambda: listener.ailment)
    async with (
        served(app, "127.0.0.1", 0) as address,
        httpx.AsyncClient(base_url=address) as http,
    ):
        yield http


async def test_metrics_are_there_as_they_are_now(
    http: httpx.AsyncClient, listener: Listener
) -> None:
    listener.metrics.messages_came(Cloud.AZURE, 3)

    answer = await http.get("/metrics")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples = {
        (sample.name, sample.labels.get("cloud")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["suture_react_messages_total", "azure"] == 3
    assert samples["suture_react_messages_total", "aws"] == 0


async def test_health_is_told_with_the_reason(http: httpx.AsyncClient, listener: Listener) -> None:
    well = await http.get("/healthz")
    listener.ailment = "acme: no message could be received for 61 s"
    ill = await http.get("/healthz")
    listener.ailment = ""
    again = await http.get("/healthz")

    assert (well.status_code, well.text) == (200, "ok")
    assert (ill.status_code, ill.text) == (503, "acme: no message could be received for 61 s")
    assert again.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/metrics", 405), ("POST", "/healthz", 405), ("GET", "/", 404), ("GET", "/x", 404)],
)
async def test_there_is_nothing_else(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    assert (await http.request(method, path)).status_code == status
