"""The guides for people: written in a rule's row, or Markdown files that several rows share."""

from __future__ import annotations

import textwrap
from importlib.resources import files
from string import Template

_WIDTH = 100


def guide(name: str, **values: str) -> str:
    """The text of guides/``name``.md with every ``$placeholder`` filled in.

    Raises KeyError for a placeholder without a value, so that no guide shows a raw one. In the
    files a dollar sign of a shell is written ``$$``.
    """
    text = files("tasks.rules").joinpath("guides", f"{name}.md").read_text("utf-8")
    return Template(text).substitute(values).strip()


def written(
    *,
    means: str,
    matters: str,
    cli: str,
    terraform: str,
    breaks: str,
    console: str = "",
    portal: str = "",
    fix: str = "",
    back: str = "Suture's undo puts back exactly what stood there before.",
    by_hand: str = "",
) -> str:
    """A guide from its parts. ``console`` is AWS's, ``portal`` Azure's: one of them.

    ``fix`` is what Suture does, and ``back`` how it takes that back; a rule that is guided only
    says in ``by_hand`` why, and has neither. Lines of ``cli`` and ``terraform`` stay as they are.
    """
    where = ("Console.", console) if console else ("Portal.", portal)
    does = (
        ("Why Suture's fix does not exist.", by_hand)
        if by_hand
        else ("What Suture's fix does.", fix)
    )
    paragraphs = [
        _paragraph("What it means.", means),
        _paragraph("Why it matters.", matters),
        _paragraph(*where),
        _code("CLI.", cli),
        _code("Terraform.", terraform),
        _paragraph(*does),
        _paragraph("What may break.", breaks),
        _paragraph("How to roll back.", back),
    ]
    return "\n\n".join(paragraphs)


def _paragraph(head: str, text: str) -> str:
    words = f"**{head}** {' '.join(text.split())}"
    return textwrap.fill(words, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _code(head: str, text: str) -> str:
    return f"**{head}**\n\n" + textwrap.indent(textwrap.dedent(text).strip("\n"), "    ")
