"""The report of a benchmark, as the file that lies in benchmarks/results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(report: Mapping[str, Any], path: Path | None) -> None:
    """Write it as JSON where a file is named; its folder is made."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
