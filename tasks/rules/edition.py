"""Which rules there are, as one hash: what an older edition judged is judged again."""

from __future__ import annotations

import hashlib
from pathlib import Path


def _edition() -> str:
    """sha256 over the code that judges: the rule files, and the domain's words they are made of."""
    rules = Path(__file__).parent
    digest = hashlib.sha256()
    for path in (*sorted(rules.rglob("*.py")), rules.parent / "model.py"):
        digest.update(f"{path.relative_to(rules.parent)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


EDITION = _edition()
