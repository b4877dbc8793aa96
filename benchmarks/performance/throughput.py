"""How many trials an hour a device answers: by a plain script, by a worker of one slot, and by one of several.

    python -m benchmarks.performance.throughput TEXT [--parts slots one_slot script] [--sweep examples/h200.yaml]
        [--runtime tensorrt] [--steps 300] [--points 4] [--slot-points 24] [--slots auto] [--limit-seconds 520]
        [--out benchmarks/results/throughput.json]

The points are stratified over the space: the script and the single slot take the first `--points`, the slots all
`--slot-points`, of which the first are the same. There are no constraints and no pruner. Each part has a service, a
worker and caches of its own, and is timed from the first trial's beginning to the last one's end: what the limit cuts
off does not count. The parts that are run replace those of the same name, steps and points in `--out`; the summary is
over all of the same steps that are there.

`alone_seconds` are what a trial needs the device to itself for, by cause: they cannot overlap, so an hour has no more
trials than 3600 by their sum (`bound`). `device_busy` is what `nvidia-smi` says twice a second. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import httpx2
import yaml

from benchmarks.end_to_end.h200 import on_runtime
from benchmarks.support.processes import ROOT, machine, running_service, running_worker
from benchmarks.support.report import write
from layers.dataset_facts import facts_of
from layers.space.document import Space, parse_document
from layersweep import Client

PARTS = ("slots", "one_slot", "script")
READY_SECONDS = 120.0
Chosen = Mapping[str, Any]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("text", type=Path)
    arguments.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments.add_argument("--sweep", type=Path, default=Path("examples/h200.yaml"))
    arguments.add_argument("--runtime", default="tensorrt")
    arguments.add_argument("--steps", type=int, default=300)
    arguments.add_argument("--points", type=int, default=4)
    arguments.add_argument("--slot-points", type=int, default=24)
    arguments.add_argument("--slots", default="auto")
    arguments.add_argument("--limit-seconds", type=float, default=520, help="of all parts together")
    arguments.add_argument("--out", type=Path, default=Path("benchmarks/results/throughput.json"))
    options = arguments.parse_args()

    until = time.monotonic() + options.limit_seconds
    document = on_runtime(yaml.safe_load(options.sweep.read_text()), options.runtime)
    document |= {"search": {"sampler": "random", "seed": 0, "reuse": False}, "constraints": []}
    document["training"]["steps"] = options.steps
    label = {"steps": options.steps, "sweep": options.sweep.name, "runtime": options.runtime}
    report = json.loads(options.out.read_text()) if options.out.is_file() else {"benchmark": "throughput", "parts": []}
    for part in options.parts:
        left_seconds = until - time.monotonic()
        if left_seconds < 30:
            print(f"{part}: no time is left for it", flush=True)
            break
        count = options.slot_points if part == "slots" else options.points
        slots = options.slots if part == "slots" else "1"
        print(f"{part}: {count} points, {left_seconds:.0f} s are left", flush=True)
        found = Run(document, options.text, options.runtime, left_seconds).of(part, count, options.points, slots)
        command = "python -m benchmarks.performance.throughput " + " ".join(sys.argv[1:])
        found = {"part": part, **label, "command": command.replace(str(options.text), "TEXT"), **machine(), **found}
        print(json.dumps({name: value for name, value in found.items() if name != "trials"}), flush=True)
        same = ("part", "points", *label)
        report["parts"] = [each for each in report["parts"] if any(each[name] != found[name] for name in same)]
        report["parts"].append(found)
        report["summary"] = summary([each for each in report["parts"] if each["steps"] == options.steps])
        write(report, options.out)
    print(json.dumps(report.get("summary", {})))
    return 0


class Run:
    """One part, with a service of its own."""

    def __init__(self, document: Mapping[str, Any], text: Path, runtime: str, limit_seconds: float) -> None:
        self._document = dict(document)
        self._text = text
        self._runtime = runtime
        self._until = time.monotonic() + limit_seconds - 10

    def of(self, part: str, count: int, shared: int, slots: str) -> dict[str, Any]:
        """What the part took. Of `count` points the first `shared` are those of every part."""
        with tempfile.TemporaryDirectory() as name, running_service(Path(name)) as url:
            client = Client(url)
            split = {"validation": 0.1} if self._document["task"] == "causal_lm" else {}
            record: Any = client.add_dataset(
                self._document["dataset"], self._text, task=self._document["task"], tokenizer="char", **split
            )
            about = {
                "task": record["task"],
                "tokenizer": record["tokenizer"],
                "facts": facts_of(record["task"], record["facts"], record["parts"]),
            }
            space = parse_document({**self._document, "start_from": []}, find_dataset=lambda _: about).space
            points = stratified(space, shared, seed=0)
            points += [each for each in stratified(space, count, seed=1) if each not in points][: count - shared]
            if part == "script":
                return self._script(space, points, Path(name), url, record["id"])
            return self._sweep(client, points, Path(name), url, slots)

    def _script(self, space: Space, points: Sequence[Chosen], folder: Path, url: str, dataset: str) -> dict[str, Any]:
        work: dict[str, Any] = {
            "runtime": self._runtime,
            "limit_seconds": self._until - time.monotonic(),
            "points": [space.configuration(space.resolve(dict(point))) for point in points],
        }
        for split in ("training", "validation"):
            answer = httpx2.get(f"{url}/v1/datasets/{dataset}/content", params={"part": split}, timeout=60)
            answer.raise_for_status()
            (folder / f"{split}-split.npz").write_bytes(answer.content)
            work[split] = str(folder / f"{split}-split.npz")
        (folder / "work.json").write_text(json.dumps(work))
        command = [sys.executable, "-m", "benchmarks.performance.plain_script", str(folder / "work.json")]
        trials: list[dict[str, Any]] = []
        with busy() as seen, subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as script:
            assert script.stdout is not None
            watchdog = threading.Timer(max(1.0, self._until - time.monotonic()), script.kill)
            watchdog.start()
            for line in script.stdout:
                trials.append(json.loads(line))
                print(f"  {line.strip()}", flush=True)
            watchdog.cancel()
        seconds = [trial["seconds"] for trial in trials]
        return {
            **rate(len(points), [trial["ended_at_seconds"] for trial in trials]),
            "device_busy": seen(),
            "seconds_by_step": {name: mean([each[name] for each in seconds]) for name in (seconds[:1] or [{}])[0]},
            "trials": trials,
        }

    def _sweep(self, client: Client, points: Sequence[Chosen], folder: Path, url: str, slots: str) -> dict[str, Any]:
        document = self._document | {"start_from": [dict(point) for point in points]}
        document["budget"] = {"trials": len(points), "parallel": len(points)}
        with running_worker(url, folder, options=["--slots", slots]):
            deadline = time.monotonic() + READY_SECONDS
            while not client.workers():
                if time.monotonic() > deadline:
                    raise RuntimeError("the worker did not register:\n" + (folder / "worker.log").read_text()[-3000:])
                time.sleep(0.2)
            with busy() as seen:
                sweep, told = client.submit(document), 0.0
                while not sweep.refresh().ended and time.monotonic() < self._until:
                    if time.monotonic() - told > 15:
                        told = time.monotonic()
                        print(f"  {self._until - told:.0f} s are left: {sweep.record['progress']}", flush=True)
                    time.sleep(0.5)
                trials: list[Any] = [client.trial(trial["id"]) for trial in sweep.trials()]
        complete = sorted((t for t in trials if t["state"] == "complete"), key=lambda trial: trial["ended_at"])
        if len(complete) < len(points):
            print((folder / "worker.log").read_text()[-2000:], flush=True)
        began = min((at(trial["started_at"]) for trial in trials if trial["started_at"]), default=0.0)
        costs = [trial["measurements"]["cost"] for trial in complete]
        alone = {
            name.removeprefix("alone_").removesuffix("_turn_seconds"): mean([cost.get(name, 0.0) for cost in costs])
            for name in sorted({name for cost in costs for name in cost if name.startswith("alone_")})
        }
        return {
            **rate(len(points), [at(trial["ended_at"]) - began for trial in complete]),
            "slots": slots,
            "device_busy": seen(),
            "ended": Counter(trial["state"] for trial in trials),
            "alone_seconds": alone,
            "alone_seconds_by_cause": by_name([cost.get("alone", {}) for cost in costs]),
            "bound_trials_an_hour": round(3600 / sum(alone.values()), 1) if sum(alone.values()) else None,
            "seconds_by_step": by_name(costs),
            "waits": by_name([trial["measurements"].get("waits", {}) for trial in complete]),
            "device_seconds": mean([trial["metrics"]["device_seconds"] for trial in complete]),
            "trials": [brief(trial) for trial in sorted(trials, key=lambda trial: trial["number"])],
        }


def stratified(space: Space, count: int, *, seed: int) -> list[Chosen]:
    """Points that keep the rules, one of each of `count` equal parts of the space's enumeration."""
    size, source, found = space.points(), random.Random(seed), list[Chosen]()
    if size is None:
        raise ValueError("the points of this space are not counted: take one whose parameters have values")
    for part in range(count):
        first, last = part * size // count, max(part * size // count, (part + 1) * size // count - 1)
        candidates = [space.at(index) for index in range(first, last + 1)]
        source.shuffle(candidates)
        kept = [point for point in candidates if space.judge(space.resolve(dict(point))) is None and point not in found]
        found += kept[:1]
    return found


def at(time_of_day: str) -> float:
    """A time as the service writes it, in seconds."""
    return datetime.fromisoformat(time_of_day).timestamp()


def rate(points: int, ended_at_seconds: Sequence[float]) -> dict[str, Any]:
    """From the first trial's beginning; `steady` from the first one's end, when everything is warm."""
    seconds = max(ended_at_seconds, default=0.0)
    steady_seconds = seconds - min(ended_at_seconds, default=0.0)
    return {
        "points": points,
        "complete": len(ended_at_seconds),
        "seconds": round(seconds, 2),
        "trials_an_hour": round(3600 * len(ended_at_seconds) / seconds, 1) if seconds else None,
        "steady_trials_an_hour": (
            round(3600 * (len(ended_at_seconds) - 1) / steady_seconds, 1) if steady_seconds else None
        ),
    }


def by_name(each: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of each number that has a name, over all of them."""
    names = {name for one in each for name, value in one.items() if isinstance(value, (int, float))}
    return {name: mean([one.get(name, 0.0) for one in each]) for name in sorted(names)}


def mean(values: Sequence[float]) -> float:
    return round(statistics.fmean(values), 3) if values else 0.0


def brief(trial: Mapping[str, Any]) -> dict[str, Any]:
    metrics = ("latency_ms_p50", "latency_ms_p99", "latency_cv", "validation_loss", "device_seconds")
    return {
        **{name: trial[name] for name in ("number", "state", "reason", "parameters", "started_at", "ended_at")},
        "metrics": {name: trial["metrics"].get(name) for name in metrics},
        "cost": trial["measurements"].get("cost", {}),
        "waits": trial["measurements"].get("waits", {}),
    }


def summary(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each part's rate, the slots' over the others' and over the bound, and whether the figures are the same."""
    found = {part["part"]: part for part in parts}
    rates = {name: part["trials_an_hour"] for name, part in found.items()}
    steady = {name: part["steady_trials_an_hour"] for name, part in found.items()}
    told: dict[str, Any] = {"trials_an_hour": rates, "steady_trials_an_hour": steady}
    slots = found.get("slots")
    if slots is None or not slots["trials_an_hour"]:
        return told
    told["times"] = {name: round(slots["trials_an_hour"] / each, 2) for name, each in rates.items() if each}
    if bound := slots["bound_trials_an_hour"]:
        told["share_of_bound"] = round(slots["trials_an_hour"] / bound, 3)
    if "one_slot" in found:
        of_points = {json.dumps(t["parameters"], sort_keys=True): t["metrics"] for t in found["one_slot"]["trials"]}
        both = [
            (of_points[key], trial["metrics"])
            for trial in slots["trials"]
            if trial["state"] == "complete" and (key := json.dumps(trial["parameters"], sort_keys=True)) in of_points
        ]
        told["same_points"] = len(both)
        told["same_losses"] = sum(a["validation_loss"] == b["validation_loss"] for a, b in both)
        told["latency_over_one_slot"] = [
            round(b["latency_ms_p50"] / a["latency_ms_p50"], 4) for a, b in both if a["latency_ms_p50"]
        ]
    return told


@contextmanager
def busy() -> Iterator[Any]:
    """Yields what answers, after the context, how busy the GPU was in it; None where `nvidia-smi` is not here."""
    program = shutil.which("nvidia-smi")
    if program is None:
        yield lambda: None
        return
    command = [program, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "500"]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, env=os.environ)
        shares: list[float | None] = []
        try:
            yield lambda: shares[-1]
        finally:
            process.terminate()
            process.wait()
            shares.append(_share(output))


def _share(output: IO[str]) -> float | None:
    output.seek(0)
    values = [int(line) for line in output.read().split() if line.isdigit()]
    return round(statistics.fmean(values) / 100, 3) if values else None


if __name__ == "__main__":
    sys.exit(main())
