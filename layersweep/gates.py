"""Gates: does a trial, measured anew, keep its limits? For CI, by `layersweep sweep assert` or from a test.

from layersweep import Client
from layersweep.gates import Gate

sweep = Client().sweep("shakespeare")
judgement = Gate(["latency_ms_p50 <= 2.0", "memory_bytes <= 2e8"]).judge(sweep)
assert judgement["verdict"] != "broken", judgement["limits"]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from layersweep import files
from layersweep.errors import InvalidUsageError, LayersweepError
from layersweep.records.assertions import Baseline, Judgement
from layersweep.sweep import Sweep

MOST_BASELINE_BYTES = 2**20
BASELINE = "baseline"


class MeasurementFailedError(LayersweepError):
    """The trial could not be measured anew: its builds failed, or somebody ended the sweep that measures it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial to be measured: its sweep, and its number there (None: the recommended one)."""

    sweep: Sweep
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """Limits, and how they are judged.

    A trial is measured in `builds` builds first. While a limit can be called neither kept nor broken, as many are added
    again, up to `most_builds`. `risk_of_alarm` is that of a limit which is kept to be called broken, in all judgements
    together; `risk_of_miss` that of one which is broken to be called kept, in each.
    """

    limits: Sequence[str]
    builds: int = 5
    most_builds: int = 40
    risk_of_alarm: float = 0.02
    risk_of_miss: float = 0.05

    def judge(
        self,
        sweep: Sweep,
        number: int | None = None,
        *,
        baseline: Baseline | None = None,
        timeout_seconds: float | None = None,
        on_judgement: Callable[[Judgement], object] = lambda judgement: None,
    ) -> Judgement:
        """Measure a trial and judge it, `baseline` in the limits being what was kept of an earlier judgement.

        Without one it is what is measured now, in `most_builds` builds at once: the judgement then says whether so many
        could tell that nothing has changed, and its `measured` is a baseline to keep. `on_judgement` is called after
        every judgement. Raises ConflictError (`baseline-mismatch`) for a baseline of another device, runtime, version
        of results or shape, MeasurementFailedError where builds fail, WaitTimeoutError where a round takes longer than
        `timeout_seconds`.
        """
        is_baseline = baseline is None and any(BASELINE in limit for limit in self.limits)
        gate = replace(self, builds=self.most_builds) if is_baseline else self
        return gate.judge_sweeps(
            [sweep.remeasure(self.limits, number, builds=gate.builds)],
            builds=gate.builds,
            baseline=baseline,
            timeout_seconds=timeout_seconds,
            on_judgement=on_judgement,
        )

    def judge_against(
        self,
        trial: Trial,
        other: Trial,
        *,
        timeout_seconds: float | None = None,
        on_judgement: Callable[[Judgement], object] = lambda judgement: None,
    ) -> Judgement:
        """Measure two trials in turns, a build of one and a build of the other, and judge the first.

        `baseline` in the limits is the other one: what slows the device meanwhile slows both. Raises as `judge` does.
        """
        measuring = [each.sweep.remeasure(self.limits, each.number, builds=1) for each in (trial, other)]
        return self.judge_sweeps(measuring, builds=1, timeout_seconds=timeout_seconds, on_judgement=on_judgement)

    def judge_sweeps(
        self,
        measuring: Sequence[Sweep],
        *,
        builds: int,
        baseline: Baseline | None = None,
        timeout_seconds: float | None = None,
        on_judgement: Callable[[Judgement], object] = lambda judgement: None,
    ) -> Judgement:
        """Judge the first of the sweeps that `remeasure` made, against the baseline or else the last of them.

        Each has `builds` builds now. Several are given a build each, in turns.
        """
        against = measuring[-1].id if baseline is None else None
        counts = self._counts()
        for count in counts:
            _measure(measuring, builds, count, timeout_seconds)
            builds = count
            judgement = measuring[0].judge(
                self.limits,
                baseline=baseline,
                against=against,
                risk_of_alarm=self.risk_of_alarm / len(counts),
                risk_of_miss=self.risk_of_miss,
            )
            on_judgement(judgement)
            if judgement["verdict"] != "undecided" or count == counts[-1]:
                return judgement
        raise AssertionError("unreachable: the last judgement is returned")

    def _counts(self) -> list[int]:
        """After how many builds it is judged: twice as many each time. Seldom, as each judgement may be wrong."""
        found = [self.builds]
        while found[-1] < self.most_builds:
            found.append(min(2 * found[-1], self.most_builds))
        return found


def read_baseline(path: Path) -> Baseline:
    """A baseline that `write_baseline` wrote. Raises InvalidUsageError for what is none."""
    try:
        found = json.loads(files.read(path, MOST_BASELINE_BYTES))
    except ValueError as problem:
        raise InvalidUsageError(f"{path} is not a baseline: it is not JSON ({problem})") from None
    if not isinstance(found, dict) or not isinstance(found.get("metrics"), dict):
        raise InvalidUsageError(f"{path} is not a baseline: write one with `layersweep sweep assert --write-baseline`")
    return cast("Baseline", found)


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Keep what was measured, as JSON. Raises InvalidUsageError where the file cannot be written."""
    with files.written(path) as stream:
        stream.write(json.dumps(baseline, indent=2, ensure_ascii=False).encode() + b"\n")


def _measure(measuring: Sequence[Sweep], builds: int, count: int, timeout_seconds: float | None) -> None:
    """Let sweeps of so many builds come to `count`: one at once, several by a build each in turns."""
    while True:
        for each in measuring:
            _ended(each, timeout_seconds)
        if builds >= count:
            return
        added = 1 if len(measuring) > 1 else count - builds
        for each in measuring:
            each.extend(trials=added)
        builds += added


def _ended(sweep: Sweep, timeout_seconds: float | None) -> None:
    sweep.wait(timeout_seconds)
    if sweep.state != "completed" or not sweep.record["progress"]["complete"]:
        raise MeasurementFailedError(
            f"{sweep.name} ({sweep.id}) is {sweep.state}: {sweep.record['reason'] or 'no build is complete'}. "
            f"See its trials: layersweep leaderboard {sweep.id}"
        )
