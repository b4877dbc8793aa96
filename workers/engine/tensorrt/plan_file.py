"""A TensorRT plan with what must be known of it, as one file.

The file is a plain zip archive, stored and not compressed: `plan`, as the library serialized it, and `about.json`. The
library may crash on a damaged plan: the archive's checksum finds damage before, and `unzip` gives the plan to other
tools. A timing cache (timing_cache.py) is kept in the same form.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..protocol import JsonObject, RequestError, invalid

_PLAN, _ABOUT = "plan", "about.json"


@dataclass(frozen=True)
class PlanFile:
    """`about`: runtime, version, built_for, options, weights_bytes, io_bytes."""

    content: bytes
    about: JsonObject


def write_plan(path: Path, content: memoryview, about: JsonObject) -> None:
    """Raises RequestError where the file cannot be written."""
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(_ABOUT, json.dumps(about))
            with archive.open(_PLAN, "w", force_zip64=True) as stream:
                stream.write(content)
    except OSError as problem:
        raise RequestError("internal", f"{path.name} cannot be written: {problem}") from problem


def is_plan_file(path: Path) -> bool:
    """Whether it looks like one; `read_plan` tells whether it is whole."""
    return zipfile.is_zipfile(path)


def read_plan(path: Path) -> PlanFile:
    """The plan of a file. Raises RequestError("invalid") where it is no whole one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return PlanFile(archive.read(_PLAN), json.loads(archive.read(_ABOUT)))
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, NotImplementedError) as problem:
        raise invalid(f"{path} is no engine file (cut off? build it again): {problem}") from problem
