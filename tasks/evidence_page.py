"""The evidence of a remediation as a page for people. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from tasks.evidence import changed, entries_in, problems
from tasks.story import tell


def page(evidence: Mapping[str, Any], *, file: str, digest: str) -> str:
    """One HTML page without scripts or remote assets. Everything from a cloud is escaped.

    ``file`` is what the evidence itself is called, ``digest`` its sha256.
    """
    return _template().render(
        evidence=evidence,
        file=file,
        digest=digest,
        problems=problems(evidence),
        story=tell(entries_in(evidence)),
        changes=changed(evidence),
    )


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["readable"] = lambda text: json.dumps(json.loads(text), indent=1)
    source = files("tasks.pages").joinpath("evidence.html").read_text(encoding="utf-8")
    return environment.from_string(source)
