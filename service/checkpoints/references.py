"""`training.initialize_from: checkpoint:NAME` of a sweep document, with the hash of what it names.

The hash becomes part of the document, and so of every configuration and reuse key: weights that change are others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from layers.declarations.training import CHECKPOINT
from service.errors import InvalidDocumentError, Problem

FIELD = "initialize_from"

Find = Callable[[str], tuple[str, str] | None]
"""Answers a checkpoint's hash and task by its name."""


def with_hashes(document: Mapping[str, object], find: Find) -> Mapping[str, object]:
    """The document with `checkpoint:NAME@HASH` for each `checkpoint:NAME`. Raises InvalidDocumentError for one that is
    not there, is another one by now, or is for another task. What is no such reference is left to the reader."""
    task = document.get("task")
    found = dict(document)
    if isinstance(training := document.get("training"), Mapping):
        section = dict(cast("Mapping[str, object]", training))
        if FIELD in section:
            section[FIELD] = _resolved(section[FIELD], f"/training/{FIELD}", task, find)
            found["training"] = section
    dotted = f"training.{FIELD}"
    if dotted in found:
        found[dotted] = _resolved(found[dotted], f"/{dotted}", task, find)
    return found


def _resolved(written: object, pointer: str, task: object, find: Find) -> object:
    if isinstance(written, str):
        return _with_hash(written, pointer, task, find)
    if isinstance(written, Mapping):
        entry = dict(cast("Mapping[str, object]", written))
        if isinstance(values := entry.get("values"), list):
            entry["values"] = [
                _resolved(value, f"{pointer}/values/{index}", task, find)
                for index, value in enumerate(cast("list[object]", values))
            ]
        return entry
    return written


def _with_hash(written: str, pointer: str, task: object, find: Find) -> str:
    match = CHECKPOINT.fullmatch(written)
    if match is None:
        return written
    name, digest = match["name"], match["digest"]
    known = find(name)
    if known is None:
        raise _refused(pointer, f"there is no checkpoint {name!r}", "upload it first: layersweep checkpoint add FOLDER")
    if digest is not None and digest != known[0]:
        raise _refused(pointer, f"the checkpoint {name!r} has other content by now", f"write checkpoint:{name}")
    if known[1] != task:
        raise _refused(pointer, f"{name} is a checkpoint for {known[1]}, not for {task}", "name another one")
    return f"checkpoint:{name}@{known[0]}"


def _refused(pointer: str, detail: str, remedy: str) -> InvalidDocumentError:
    return InvalidDocumentError(f"{pointer}: {detail}", problems=[Problem(pointer, detail, remedy)])
