"""Which rules there are, as one hash: what an older edition judged is judged again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from tasks.model import Rule


def edition(tasks: Path) -> str:
    """sha256 over the code that judges: the rule files, and the domain's words they are made of.

    ``tasks`` is the folder that holds them.
    """
    digest = hashlib.sha256()
    for path in (*sorted((tasks / "rules").rglob("*.py")), tasks / "model.py"):
        digest.update(f"{path.relative_to(tasks)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


EDITION = edition(Path(__file__).parents[1])


def edition_of(rules: Iterable[Rule]) -> str:
    """The edition where only these rules are in force: what fewer have judged is judged again."""
    return hashlib.sha256(
        "\n".join([EDITION, *sorted(one.id for one in rules)]).encode()
    ).hexdigest()
