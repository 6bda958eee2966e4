"""`make generated`: write what comes from the rule table, the README's table and the templates."""

from __future__ import annotations

import re
from pathlib import Path

from deployments.templates import template_text
from tasks.model import Cloud
from tasks.rules import RULES
from tasks.rules.table import readme_section

ROOT = Path(__file__).parents[1]
MARKS = re.compile(r"(<!-- rules:.*?-->\n).*?(<!-- /rules -->)", re.DOTALL)


def main() -> None:
    """Write the files in place. Tests fail while they differ from the table."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    section = readme_section(RULES)
    written = MARKS.sub(lambda found: f"{found[1]}{section}{found[2]}", text)
    readme.write_text(written, encoding="utf-8")
    for cloud in Cloud:
        path = ROOT / "deployments" / cloud.value / "suture.json"
        path.write_text(template_text(cloud), encoding="utf-8")


if __name__ == "__main__":
    main()
