"""`suture react`: what reacting to events takes, from the command line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deployments.event_parts import Part
from deployments.printing import Format, FormatOption
from tasks.model import Cloud

if TYPE_CHECKING:
    from tasks.reacting.listener import Listener


react_app = typer.Typer(help="React to what the clouds report: find and fix a bad change at once.")
LOOPBACK = "127.0.0.1"


@react_app.callback(invoke_without_command=True)
def react(
    context: typer.Context,
    status: Annotated[
        bool, typer.Option("--status", help="Say how the listeners are doing, and end.")
    ] = False,
    form: FormatOption = Format.TABLE,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve /metrics (Prometheus) and /healthz on this port.")
    ] = None,
    webhook_port: Annotated[
        int | None, typer.Option(help="Take Event Grid's events by POST /events on this port.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address that both ports are bound to.")] = LOOPBACK,
    certificate: Annotated[
        Path | None, typer.Option(help="PEM file, for the webhook to be served by TLS.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="The certificate's key, in PEM.")] = None,
) -> None:
    """Listen for control-plane events, and find and fix a bad change about a second after it.

    Ends in order on Ctrl-C or SIGTERM. Any number of listeners share the queues.
    """
    if context.invoked_subcommand is not None:
        return
    if status:
        _print_status(form)
        return
    _listen(host, metrics_port, webhook_port, certificate, key)


def _listen(
    host: str,
    metrics_port: int | None,
    webhook_port: int | None,
    certificate: Path | None,
    key: Path | None,
) -> None:
    from deployments.webhook_auth import auth_from_settings
    from flows.react import react as react_flow
    from tasks.reacting.running import BESIDE, Beside

    auth = auth_from_settings() if webhook_port is not None else None

    @asynccontextmanager
    async def serve(listener: Listener) -> AsyncIterator[None]:
        from deployments.beside import served
        from deployments.event_webhook import event_webhook
        from deployments.metrics_page import metrics_page

        async with AsyncExitStack() as opened:
            if metrics_port is not None:
                page = metrics_page(listener.metrics.registry, lambda: listener.trouble)
                address = await opened.enter_async_context(served(page, host, metrics_port))
                typer.echo(f"Metrics: {address}/metrics", err=True)
            if auth is not None and webhook_port is not None:
                hook = event_webhook(listener.accept, auth)  # Event Grid keeps what is refused
                address = await opened.enter_async_context(
                    served(hook, host, webhook_port, certificate=certificate, key=key)
                )
                typer.echo(f"Webhook: {address}/events", err=True)
            yield

    BESIDE.set(Beside(serve, hears=auth is not None))
    state = react_flow(return_state=True)
    if not state.is_completed():
        typer.echo(f"suture: {state.message or state.name}", err=True)
        raise typer.Exit(1)
    typer.echo(f"Stopped. {state.message}")


def _print_status(form: Format) -> None:
    from tasks.warehouse import events
    from tasks.warehouse.database import connect

    with connect() as warehouse:
        waits = events.backlog(warehouse)
        there = events.listeners(warehouse)
    told: dict[str, Any] = {
        "clouds": {
            cloud.value: {
                "waiting": one.waiting,
                "lag_seconds": round(one.lag_seconds, 1),
                "in_flight": one.in_flight,
                "done_last_minute": one.done_last_minute,
                "failed_last_day": one.failed_last_day,
            }
            for cloud, one in waits.items()
        },
        "listeners": [
            {
                "host": one.host,
                "flow_run": one.flow_run_id,
                "since": one.started_at.isoformat(timespec="seconds"),
                "seen": one.seen_at.isoformat(timespec="seconds"),
                **one.counts,
            }
            for one in there
        ],
    }
    if form is Format.JSON:
        typer.echo(json.dumps(told, indent=2))
        return
    console = Console()
    table = Table("cloud", "waiting", "lag", "in flight", "done in a minute", "failed in a day")
    for name, one in told["clouds"].items():
        table.add_row(
            name,
            str(one["waiting"]),
            f"{one['lag_seconds']} s",
            *(str(one[key]) for key in ("in_flight", "done_last_minute", "failed_last_day")),
        )
    console.print(table)
    if not there:
        console.print("Nobody listens. Start a listener with `suture react`.")
        return
    table = Table("listener", "since", "messages", "events", "in hand", "remediated", "queues")
    for one in told["listeners"]:
        queues = ", ".join(
            f"{name}: {depth['waiting']} waiting" for name, depth in one.get("queues", {}).items()
        )
        counts = (str(one.get(key, 0)) for key in ("messages", "events", "in_hand", "remediated"))
        table.add_row(one["host"], one["since"], *counts, one.get("trouble") or queues)
    console.print(table)


@react_app.command("template")
def react_template(
    cloud: Annotated[Cloud, typer.Option(help="For which cloud.")],
    part: Annotated[
        Part | None,
        typer.Option(
            help="AWS: hub, or member (what sends). Azure: queue, or subscription (what sends).",
            show_default="what sends",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The file to write, instead of the screen.")
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(help="Only the events of these rules, such as aws_s3_*. May be repeated."),
    ] = None,
) -> None:
    """Print what makes events reach Suture's queue: a CloudFormation or an ARM template.

    Its event patterns are those of the rule table. deployments/aws and deployments/azure hold the
    same text, and say how to deploy it.
    """
    from deployments.event_rules import event_template_text
    from tasks.rules import rules_of

    text = event_template_text(cloud, part, rules_of(rule or (), "--rule"))
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
