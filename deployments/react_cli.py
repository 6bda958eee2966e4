"""`suture react`: what reacting to events takes, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.event_rules import Part
from tasks.model import Cloud

react_app = typer.Typer(help="React to what the clouds report: find and fix a bad change at once.")


@react_app.callback()
def react() -> None:
    """React to what the clouds report: find and fix a bad change at once."""


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
