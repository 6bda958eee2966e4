"""The guides for people: Markdown files beside the table, filled in where port rules share one."""

from __future__ import annotations

from importlib.resources import files
from string import Template


def guide(name: str, **values: str) -> str:
    """The text of guides/``name``.md with every ``$placeholder`` filled in.

    Raises KeyError for a placeholder without a value, so that no guide shows a raw one. In the
    files a dollar sign of a shell is written ``$$``.
    """
    text = files("tasks.rules").joinpath("guides", f"{name}.md").read_text("utf-8")
    return Template(text).substitute(values).strip()
