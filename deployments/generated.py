"""`make generated`: write what comes from the rule table, the README's table and the templates."""

from __future__ import annotations

import re
from pathlib import Path

from deployments.event_rules import PARTS, event_template_text
from deployments.templates import template_text
from tasks.clouds.costs import markdown_costs
from tasks.model import Cloud
from tasks.rules import RULES
from tasks.rules.table import readme_section

ROOT = Path(__file__).parents[1]
MARKS = {
    name: re.compile(rf"(<!-- {name}:.*?-->\n).*?(<!-- /{name} -->)", re.DOTALL)
    for name in ("rules", "kinds")
}


def sections() -> dict[str, str]:
    """What the README says between each pair of marks."""
    return {"rules": readme_section(RULES), "kinds": f"\n{markdown_costs(RULES)}\n"}


def main() -> None:
    """Write the files in place. Tests fail while they differ from the table."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name, section in sections().items():
        found = MARKS[name].search(text)
        assert found, f"README.md has no marks of {name}"
        text = text[: found.end(1)] + section + text[found.start(2) :]
    readme.write_text(text, encoding="utf-8")
    for cloud in Cloud:
        path = ROOT / "deployments" / cloud.value / "suture.json"
        path.write_text(template_text(cloud), encoding="utf-8")
        for part, name in PARTS[cloud].items():
            path.with_name(name).write_text(event_template_text(cloud, part), encoding="utf-8")


if __name__ == "__main__":
    main()
