"""The benchmark's programs are scripts that import each other by name, as they do when they run."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "fleet"))
