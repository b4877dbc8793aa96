"""Sweeps and leaderboards in a notebook: every text is escaped."""

from __future__ import annotations

from typing import Any

from layersweep import Leaderboard, notebook

HOSTILE = "<script>alert(1)</script>"


def test_a_sweep_is_a_table() -> None:
    record: Any = {
        "id": "01M8M1TJNBB6WWZYPY65YP22BA",
        "name": HOSTILE,
        "state": "completed",
        "reason": HOSTILE,
        "target": None,
        "progress": {"complete": 3, "budget": 6},
        "best": {"latency_ms_p50": {"value": 0.123456, "number": 2}},
    }
    found = notebook.of_sweep(record)
    assert HOSTILE not in found
    assert "&lt;script&gt;" in found
    assert "<th>best latency_ms_p50</th><td>0.1235 (trial 2)</td>" in found


def test_a_leaderboard_shows_its_first_rows() -> None:
    rows: list[Any] = [
        {
            "number": number,
            "on_front": number == 0,
            "state": "complete",
            "metrics": {"latency_ms_p50": 0.5},
            "parameters": {"mlp.kind": HOSTILE},
        }
        for number in range(60)
    ]
    board = Leaderboard(rows, [{"metric": "latency_ms_p50", "goal": "minimize"}], 70)
    found = board._repr_html_()
    assert HOSTILE not in found
    assert found.count("<tr>") == 51
    assert "50 of 70 trials" in found
