"""Pictures of a sweep's result on a GPU: its trials with the front, and where the time of a trial goes.

    python -m benchmarks.support.figures benchmarks/results/shakespeare-h100.json

Writes NAME-front.svg (latency and validation loss; dots: not on the front of the two) and NAME-phases.svg beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HARDWARE_FIRST = ("check", "build", "measure", "train", "quantize", "rebuild", "remeasure", "evaluate")
TRAINING_FIRST = ("check", "train", "quantize", "build", "measure", "evaluate")
COLOURS = {
    "check": "#999",
    "build": "#3b6fb6",
    "measure": "#e0a030",
    "train": "#4f9d5d",
    "quantize": "#b0503c",
    "rebuild": "#86aede",
    "remeasure": "#f0cc7c",
    "evaluate": "#a05fa8",
    "other": "#444",
}
STYLE = '<style>text{font:12px sans-serif;fill:#222}</style><rect width="100%" height="100%" fill="#fff"/>'


def front_svg(trials: list[dict[str, Any]]) -> str:
    """Latency to the right, validation loss up; filled where no trial is better in both."""
    points = [(t["metrics"]["latency_ms_p50"], t["metrics"]["validation_loss"], t) for t in trials]
    lows, highs = [min(p[axis] for p in points) for axis in (0, 1)], [max(p[axis] for p in points) for axis in (0, 1)]

    def place(latency: float, loss: float) -> tuple[float, float]:
        return (
            60 + 520 * (latency - lows[0]) / (highs[0] - lows[0]),
            330 - 290 * (loss - lows[1]) / (highs[1] - lows[1]),
        )

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="400">{STYLE}']
    for latency, loss, trial in points:
        x, y = place(latency, loss)
        best = not any(a <= latency and b <= loss and (a, b) != (latency, loss) for a, b, _ in points)
        dtype = trial["parameters"].get("dtype", "")
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" stroke="#3b6fb6" fill="{"#3b6fb6" if best else "#fff"}"/>'
        )
        parts.append(f'<text x="{x + 9:.1f}" y="{y + 4:.1f}">{trial["number"]} {dtype}</text>')
    parts.append(f'<text x="60" y="365">{lows[0]:.3f} ms</text><text x="560" y="365">{highs[0]:.3f} ms</text>')
    parts.append(f'<text x="5" y="334">{lows[1]:.2f}</text><text x="5" y="44">{highs[1]:.2f}</text>')
    parts.append('<text x="190" y="390">latency p50, to the right; validation loss in nats, up; filled: front</text>')
    return "".join(parts) + "</svg>\n"


def phases_svg(trials: list[dict[str, Any]]) -> str:
    """A bar a trial, its phases in order of time."""
    longest = max(trial["metrics"]["device_seconds"] for trial in trials)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{60 + 24 * len(trials)}">{STYLE}']
    for row, trial in enumerate(trials):
        cost, total = trial["measurements"]["cost"], trial["metrics"]["device_seconds"]
        phases = HARDWARE_FIRST if "rebuild_seconds" in cost else TRAINING_FIRST
        seconds = {phase: cost.get(f"{phase}_seconds", 0.0) for phase in phases}
        seconds["other"] = max(0.0, total - sum(seconds.values()))
        x, y = 130.0, 10 + 24 * row
        parts.append(f'<text x="5" y="{y + 13}">{trial["number"]} {trial["parameters"].get("dtype", "")}</text>')
        for phase, spent in seconds.items():
            width = 540 * spent / longest
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" fill="{COLOURS[phase]}"/>')
            x += width
        parts.append(f'<text x="{x + 5:.1f}" y="{y + 13}">{total:.0f} s</text>')
    for index, (phase, colour) in enumerate(COLOURS.items()):
        x, y = 10 + 82 * index, 30 + 24 * len(trials)
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 16}" y="{y + 11}">{phase}</text>')
    return "".join(parts) + "</svg>\n"


def main() -> int:
    path = Path(sys.argv[1])
    trials = [trial for trial in json.loads(path.read_text())["trials"] if trial["state"] == "complete"]
    path.with_name(f"{path.stem}-front.svg").write_text(front_svg(trials))
    path.with_name(f"{path.stem}-phases.svg").write_text(phases_svg(trials))
    return 0


if __name__ == "__main__":
    sys.exit(main())
