"""`target` of a sweep document: the runtime, and the labels of the workers that may execute its trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast

from layers.labels import FORM, MAX_LABELS, problem_of
from layers.problems import Problems, shown

RUNTIMES = ("tensorrt", "tensorrt_rtx", "onnxruntime")
TARGET_FIELDS = ("runtime", "labels")


class WantedTarget(TypedDict, total=False):
    """What a document asks of its target; empty if it asks for nothing."""

    runtime: str
    labels: dict[str, str]


def read_wanted_target(written: Mapping[Any, Any], *, is_given: bool, problems: Problems) -> WantedTarget:
    """What the document says; without what cannot be, which is noted. `is_given`: the document has the section."""
    wanted: WantedTarget = {}
    runtime, labels = written.get("runtime"), written.get("labels")
    remedy = f"one of: {', '.join(RUNTIMES)}; or leave target out"
    if runtime in RUNTIMES:
        wanted["runtime"] = cast("str", runtime)
    elif runtime is not None:
        problems.add("/target/runtime", f"{shown(runtime)} is not a runtime", remedy)
    elif is_given and labels is None:
        problems.add("/target/runtime", "the target names no runtime", remedy)
    if labels is not None and (read := _read_labels(labels, problems)):
        wanted["labels"] = read
    return wanted


def _read_labels(written: object, problems: Problems) -> dict[str, str]:
    remedy = f"key: text, at most {MAX_LABELS} of them, as workers were started with: --labels gpu=h100,site=a"
    entries = cast("Mapping[Any, Any]", written) if isinstance(written, Mapping) else None
    if not entries or not all(isinstance(part, str) for entry in entries.items() for part in entry):
        problems.add("/target/labels", f"{shown(written)} is no mapping of texts to texts", remedy)
        return {}
    labels = {str(key): str(value) for key, value in sorted(entries.items())}
    if (problem := problem_of(labels)) is not None:
        problems.add("/target/labels", problem, f"key and value: {FORM}; at most {MAX_LABELS} labels")
        return {}
    return labels
