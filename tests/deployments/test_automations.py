"""The prepared automation, created as its file says, in a real server with a real webhook."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from deployments.local.stack import Stack

FILE = Path(__file__).parents[2] / "deployments" / "automations" / "came-back.yaml"
PREFECT = str(Path(sys.executable).with_name("prefect"))
NO_BLOCK = "00000000-0000-0000-0000-000000000000"
TOLD = {
    "cloud": "aws",
    "account": "111122223333",
    "closed_before": 2,
    "changed_by": "arn:aws:iam::111122223333:user/eve",
    "changed_from": "198.51.100.7",
    "operation": "ec2:AuthorizeSecurityGroupIngress",
    "changed_at": "2026-11-26T10:00:00+00:00",
}
BLOCK = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
block = CustomWebhookNotificationBlock(
    name="told", url=sys.argv[1], json_data={"subject": "{{subject}}", "body": "{{body}}"}
)
print(block.save("came-back-test", overwrite=True))
"""
EVENT = """
import json, sys
from prefect.events import emit_event
emit_event(
    "suture.finding.came-back",
    resource={"prefect.resource.id": "suture.finding.1", "prefect.resource.name": "ssh on sg-1"},
    payload=json.loads(sys.argv[1]),
)
"""


@contextmanager
def webhook() -> Iterator[tuple[str, queue.Queue[dict[str, str]]]]:
    came: queue.Queue[dict[str, str]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", came
        finally:
            server.shutdown()


def run(stack: Stack, *words: str) -> str:
    env = {**os.environ, **stack.env}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_people_are_told_who_opened_again_what_had_been_closed(
    stack: Stack, tmp_path: Path
) -> None:
    with (
        webhook() as (address, came),
        httpx.Client(base_url=stack.api_url, timeout=30, trust_env=False) as http,
    ):
        block = run(stack, sys.executable, "-c", BLOCK, address)
        own = tmp_path / "came-back.yaml"
        own.write_text(FILE.read_text().replace(NO_BLOCK, block))
        run(stack, PREFECT, "--no-prompt", "automation", "create", "--from-file", str(own))
        try:
            run(stack, sys.executable, "-c", EVENT, json.dumps(TOLD))
            told = came.get(timeout=40)
        finally:
            (made,) = (
                one
                for one in http.post("/automations/filter", json={}).json()
                if one["name"] == "suture-came-back"
            )
            http.delete(f"/automations/{made['id']}").raise_for_status()
    assert told["subject"] == "Open again: ssh on sg-1"
    for word in ("aws 111122223333", "closed 2 times", "user/eve", "198.51.100.7", "Ingress"):
        assert word in told["body"]
