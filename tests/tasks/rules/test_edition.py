"""The rule table's edition changes with whatever judges, and with nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from tasks import rules
from tasks.rules.edition import EDITION, edition


def test_edition_is_of_the_code_that_judges(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    shutil.copytree(Path(rules.__file__).parents[1], tasks)
    assert edition(tasks) == EDITION
    (tasks / "rules" / "guides" / "new.md").write_text("words")
    assert edition(tasks) == EDITION
    changed = tasks / "rules" / "aws" / "s3.py"
    changed.write_text(changed.read_text() + "\n")
    after = edition(tasks)
    assert after != EDITION
    changed.rename(changed.with_name("s4.py"))
    assert edition(tasks) not in (after, EDITION)
