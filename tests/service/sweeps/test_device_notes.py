"""What validation says of a space that several devices share."""

from __future__ import annotations

from typing import Any

import pytest

from layers.space.document import begin
from service.sweeps.device_notes import device_model_notes, device_notes

DOCUMENT: dict[str, Any] = {
    "name": "shared",
    "task": "probe",
    "model": {"kind": "mlp", "hidden_size": {"values": [32, 64]}},
    "objectives": [{"metric": "latency_ms_p50", "goal": "minimize"}],
}


def said(tp_size: Any) -> list[tuple[str, str]]:
    model = DOCUMENT["model"] if tp_size is None else {**DOCUMENT["model"], "tp_size": tp_size}
    space = begin({**DOCUMENT, "model": model}, find_dataset=lambda name: None).sweep.space
    return [(note.detail, note.remedy) for note in device_notes(space)]


@pytest.mark.parametrize("tp_size", [None, 1])
def test_nothing_of_what_one_device_holds(tp_size: Any) -> None:
    assert said(tp_size) == []


def test_the_part_of_a_space_that_needs_two_devices() -> None:
    ((detail, remedy),) = said({"values": [1, 2]})
    assert detail == "the points with tp_size 2 are shared by so many devices"
    assert "worker of 2 devices (layersweep worker --devices 0,1)" in remedy


def test_all_of_a_space_that_needs_four() -> None:
    ((detail, remedy),) = said(4)
    assert detail == "every point is shared by devices"
    assert "--devices 0,1,2,3" in remedy


@pytest.mark.parametrize(
    ("constraints", "detail"),
    [
        ([], None),
        (["latency_ms_p50 <= 2", "parameter_count <= 1e6"], None),
        (["latency_cv <= 0.1"], "it leaves out nothing: no point is left out for latency_cv <= 0.1, as a limit"),
        (["latency_ms_p50 <= 2", "latency_cv <= 0.1"], "no point is left out for latency_cv <= 0.1, as a limit"),
    ],
)
def test_limits_that_a_model_of_the_device_cannot_judge_by(constraints: list[str], detail: str | None) -> None:
    document = {**DOCUMENT, "constraints": constraints, "search": {"device_model": True}}
    notes = list(device_model_notes(begin(document, find_dataset=lambda name: None).sweep))
    assert [note.pointer for note in notes] == ([] if detail is None else ["/search/device_model"])
    assert all(note.detail.startswith(detail or "") for note in notes)
    document["search"] = {}
    assert not list(device_model_notes(begin(document, find_dataset=lambda name: None).sweep))
