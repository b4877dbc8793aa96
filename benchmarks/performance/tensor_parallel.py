"""Does a model that two GPUs share run faster, and does a worker of two outlive what befalls its ranks?

    python -m benchmarks.performance.tensor_parallel [--devices 0,1] [--widths 1024,4096,2048] [--sizes 1,2]
        [--shapes one eight] [--layers 4] [--level 1] [--measure-only] [--speed-seconds 350] [--faults-seconds 150]
        [--out benchmarks/results/tensor_parallel.json]
    python -m benchmarks.performance.tensor_parallel --cpu --widths 64

1. speed: decoders of each width with tp_size 1 and 2, measured through the whole service at 1x256 and 8x256; latency,
   memory of each rank, parity, and the speed-up.
2. faults: a mixed queue of tp_size 1 and 2 on one worker, while a rank is killed, the worker is killed and a rank is
   stopped; every trial comes to its end, and no process is left.

What is found is printed and written as it is found. `--cpu` tries the same with two processes of the CPU.
`LAYERSWEEP_ENGINE_PYTHON` names the interpreter of the engine children, as for a worker.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.support.processes import ROOT, machine, running_service, running_worker
from benchmarks.support.report import write
from layersweep import Client, Sweep

SHAPES = {"one": 1, "eight": 8}
LENGTH = 256
POLL_SECONDS = 0.1
FORGOTTEN_SECONDS = 6
"""After which the service forgets a worker that was killed."""
BUILD_SECONDS = 30
"""After which a build counts as hung."""


def speed_document(
    widths: Sequence[int],
    sizes: Sequence[int],
    shapes: Sequence[str],
    layers: int,
    target: Mapping[str, Any],
    *,
    measure_only: bool,
) -> dict[str, Any]:
    """The first width at once in every size; of the others first one device each, which two GPUs do at a time.

    `measure_only`: a limit that none can keep ends each trial after its measurement, so that it is built once.
    """
    first, *others = widths
    order = [*((first, size) for size in sizes), *((width, size) for size in sizes for width in others)]
    points = [{"hidden_size": width, "tp_size": size} for width, size in order]
    return {
        "name": "one device or two",
        "task": "causal_lm",
        "dataset": "python-topics",
        "model": {
            "num_layers": layers,
            "hidden_size": {"values": sorted(widths)},
            "tp_size": {"values": sorted(sizes)},
            "attention": {
                "num_attention_heads": {"derived": f"hidden_size / {min(128, min(widths) // 4)}"},
                "attention_mask_type": "causal",
            },
            "mlp": {"kind": "MLP", "ffn_hidden_size": {"derived": "4 * hidden_size"}, "hidden_act": "gelu"},
            "dtype": target["dtype"],
        },
        "training": {"steps": 2, "batch_size": 1, "sequence_length": LENGTH, "eval_every": 2},
        "inference": {
            **target["build"],
            "shapes": {
                name: {"batch_size": batch, "sequence_length": LENGTH}
                for name, batch in SHAPES.items()
                if name in shapes
            },
        },
        "objectives": [{"metric": f"latency_ms_p50@{shapes[-1]}", "goal": "minimize"}],
        "constraints": [f"latency_ms_p50@{shapes[-1]} <= 1e-5"] if measure_only else [],
        "budget": {"trials": len(points), "parallel": 4},
        "search": {"sampler": "random", "seed": 0},
        "start_from": points,
    }


def faults_document(width: int, target: Mapping[str, Any], trials: int) -> dict[str, Any]:
    """Small models of both kinds, in any order."""
    return {
        "name": "one and two in turns",
        "task": "causal_lm",
        "dataset": "python-topics",
        "model": {
            "num_layers": 2,
            "hidden_size": width,
            "tp_size": {"values": [1, 2]},
            "attention": {"num_attention_heads": 4, "attention_mask_type": "causal"},
            "dtype": target["dtype"],
        },
        "training": {
            "steps": 40,
            "batch_size": 8,
            "sequence_length": 64,
            "eval_every": 20,
            "learning_rate": {"min": 1e-4, "max": 1e-2, "log": True},
        },
        "inference": {**target["build"], "batch_size": 8, "sequence_length": 64},
        "objectives": [{"metric": "validation_loss", "goal": "minimize"}],
        "budget": {"trials": trials, "parallel": 4},
        "search": {"sampler": "random", "seed": 1},
    }


# --- speed ------------------------------------------------------------------------------------------------------------


def measured_speed(client: Client, document: dict[str, Any], seconds: float, said: Callable[[Any], None]) -> list[Any]:
    """Each trial as soon as it has ended, until the limit."""
    sweep, until = client.submit(document), time.monotonic() + seconds
    rows: dict[str, Any] = {}
    while time.monotonic() < until and not sweep.refresh().ended:
        _note_ended(client, sweep, rows, said)
        time.sleep(1)
    _note_ended(client, sweep, rows, said)
    if not sweep.refresh().ended:
        said({"limit": seconds, "unfinished": [each["state"] for each in sweep.trials()]})
        sweep.cancel()
    return list(rows.values())


def _note_ended(client: Client, sweep: Sweep, rows: dict[str, Any], said: Callable[[Any], None]) -> None:
    for trial in sweep.trials():
        if trial["id"] not in rows and trial["state"] not in ("queued", "running"):
            rows[trial["id"]] = row = speed_row(client.trial(trial["id"]))
            said(row)


def speed_row(trial: Any) -> dict[str, Any]:
    model, metrics = trial["configuration"]["model"], trial.get("metrics") or {}
    wanted = ("latency_ms_p50", "latency_cv", "memory_bytes", "total_memory_bytes", "device_ms_per_token")
    row: dict[str, Any] = {
        "hidden_size": model["hidden_size"],
        "tp_size": model.get("tp_size", 1),
        "state": trial["state"],
        "reason": trial.get("reason"),
        "parity_error": metrics.get("parity_error"),
        "validation_loss": metrics.get("validation_loss"),
    }
    for shape in SHAPES:
        row |= {f"{name}@{shape}": metrics.get(f"{name}@{shape}") for name in wanted}
        measurements = trial.get("measurements") or {}
        row[f"ranks@{shape}"] = [
            round(each["memory_bytes"]) for each in (measurements.get(f"ranks@{shape}") or {}).get("ranks", [])
        ]
        environment = measurements.get(f"environment@{shape}") or {}
        row[f"rank_latency_ms_p50@{shape}"] = environment.get("rank_latency_ms_p50")
        row[f"cuda_graph@{shape}"] = environment.get("cuda_graph")
    row["cost"] = (trial.get("measurements") or {}).get("cost")
    return row


def speed_ups(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Width and shape -> how much faster two are than one."""
    latencies_ms = {
        (row["hidden_size"], shape, row["tp_size"]): row[f"latency_ms_p50@{shape}"]
        for row in rows
        for shape in SHAPES
        if row[f"latency_ms_p50@{shape}"] is not None
    }
    return [
        {
            "hidden_size": width,
            "shape": f"{SHAPES[shape]}x{LENGTH}",
            "speed_up": alone_ms / latencies_ms[width, shape, 2],
        }
        for (width, shape, size), alone_ms in sorted(latencies_ms.items())
        if size == 1 and (width, shape, 2) in latencies_ms
    ]


# --- faults -----------------------------------------------------------------------------------------------------------


class Faults:
    """A queue of shared and other trials, and what is done to those that execute them."""

    def __init__(
        self, folder: Path, url: str, options: Sequence[str], said: Callable[[Any], None], seconds: float
    ) -> None:
        self._folder, self._url, self._options = folder, url, options
        self._said = said
        self._until = time.monotonic() + seconds
        self._client = Client(url)
        self._others = {process for process, _ in computing()}
        """What other workers on this machine compute."""

    def run(self, document: dict[str, Any]) -> dict[str, Any]:
        sweep = self._client.submit(document)
        with running_worker(self._url, self._folder, "killed", self._options) as worker:
            rank = self._wait_for_rank(sweep, ("measure", "remeasure", "evaluate"))
            self._kill(rank, signal.SIGKILL, "a rank is killed")
            self._wait(sweep, lambda: any(each["attempt"] > 1 for each in sweep.trials()))
            rank = self._wait_for_rank(sweep, ("build", "rebuild", "measure", "remeasure", "evaluate"))
            if rank is not None:
                worker.kill()
                worker.wait()
            self._said({"fault": "the worker is killed", "left": self._left()})
        with running_worker(self._url, self._folder, "next", [*self._options, "--wait-for-device"]):
            rank = self._wait_for_rank(sweep, ("build", "rebuild"))
            # Of the builder and of engines: whichever is needed next.
            for each in ranks() if rank is not None else []:
                self._kill(each, signal.SIGSTOP, "a rank hangs")
            self._wait(sweep, lambda: False)
        left = self._left()
        trials = [self._client.trial(each["id"]) for each in sweep.trials()]
        return {
            "sweep": sweep.record["state"],
            "reason": sweep.record.get("reason"),
            "trials": [
                {
                    "number": each["number"],
                    "tp_size": each["configuration"]["model"].get("tp_size", 1),
                    "state": each["state"],
                    "attempts": each["attempt"],
                    "reason": each.get("reason"),
                }
                for each in trials
            ],
            "left": left,
        }

    def _wait_for_rank(self, sweep: Sweep, phases: Sequence[str]) -> int | None:
        """The process of a rank while a shared trial is in one of these phases; None where none comes."""
        found: list[int] = []

        def is_there() -> bool:
            running = [each for each in sweep.trials() if each["state"] == "running" and each["phase"] in phases]
            shared = [each for each in running if self._is_shared(each["id"])]
            found[:] = ranks() if shared else []
            return bool(found)

        return found[-1] if self._wait(sweep, is_there) else None

    def _is_shared(self, trial: str) -> bool:
        return self._client.trial(trial)["configuration"]["model"].get("tp_size", 1) != 1

    def _kill(self, rank: int | None, number: signal.Signals, what: str) -> None:
        if rank is not None:
            os.kill(rank, number)
        self._said({"fault": what, "process": rank})

    def _wait(self, sweep: Sweep, condition: Callable[[], bool]) -> bool:
        """Whether it came to that before the sweep ended, or the time was over."""
        while time.monotonic() < self._until and not sweep.refresh().ended:
            if condition():
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _left(self) -> list[str]:
        """The processes of a worker that are still there, ten seconds after it has ended."""
        deadline = time.monotonic() + 10
        while (found := self._ours()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return found

    def _ours(self) -> list[str]:
        return [command for process, command in computing() if process not in self._others]


def computing() -> Iterator[tuple[int, str]]:
    """Processes of workers that compute: whatever is on a device is one of them."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                command = folder.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                is_ours = folder.joinpath("cwd").resolve() == ROOT
            except OSError:
                continue
            if is_ours and ("workers.engine" in command or "workers.processes.torch_child" in command):
                yield int(folder.name), command.strip()


def ranks() -> list[int]:
    return sorted(process for process, command in computing() if "workers.engine.parallel.rank" in command)


# --- both -------------------------------------------------------------------------------------------------------------


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--devices", default="0,1")
    arguments.add_argument("--cpu", action="store_true")
    arguments.add_argument("--widths", default="1024,4096,2048")
    arguments.add_argument("--sizes", default="1,2", help="of tp_size")
    arguments.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    arguments.add_argument("--layers", type=int, default=4)
    arguments.add_argument("--level", type=int, default=1)
    arguments.add_argument("--measure-only", action="store_true", help="build once, and train nothing")
    arguments.add_argument("--fault-trials", type=int, default=6)
    arguments.add_argument("--speed-seconds", type=float, default=350)
    arguments.add_argument("--faults-seconds", type=float, default=150)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    began = time.monotonic()
    report: dict[str, Any] = {"machine": machine(), "arguments": sys.argv[1:], "said": []}

    def said(what: Any) -> None:
        print(json.dumps({"after_seconds": round(time.monotonic() - began, 1), **what}), flush=True)
        report["said"].append(what)
        write(report, options.out)

    widths = [int(width) for width in options.widths.split(",")]
    target = {"dtype": "float32", "build": {}} if options.cpu else _gpu_target(options.level)
    worker = ["--device", "cpu", "--tp", "2", "--threads", "1"] if options.cpu else ["--devices", options.devices]
    worker += ["--slots", "4"]
    with tempfile.TemporaryDirectory() as name, kept_logs(Path(name), report, options.out):
        folder = Path(name)
        for part in ("speed", "faults"):
            folder.joinpath(part).mkdir()
        if options.speed_seconds:
            # A slow build is no hung build here: it may take as long as this whole part.
            patient = [*worker, "--build-seconds", str(options.speed_seconds)]
            with running_service(folder / "speed") as url, running_worker(url, folder, "speed", patient):
                sizes = [int(size) for size in options.sizes.split(",")]
                document = speed_document(
                    widths, sizes, options.shapes, options.layers, target, measure_only=options.measure_only
                )
                rows = measured_speed(Client(url), document, options.speed_seconds, said)
                report["targets"] = list(Client(url).targets())
            report["speed"] = rows
            said({"speed_ups": speed_ups(rows)})
        if options.faults_seconds:
            settings = {
                "LAYERSWEEP_WORKER_ALIVE_SECONDS": str(FORGOTTEN_SECONDS),
                "LAYERSWEEP_LEASE_SECONDS": str(FORGOTTEN_SECONDS),
                "LAYERSWEEP_HEARTBEAT_SECONDS": "2",
            }
            with running_service(folder / "faults", settings) as url:
                beside = [*worker, "--build-seconds", str(BUILD_SECONDS)]
                faults = Faults(folder, url, beside, said, options.faults_seconds)
                document = faults_document(min(256, widths[0]), target, options.fault_trials)
                report["faults"] = faults.run(document)
            said({"faults": report["faults"]})
    return 0


@contextmanager
def kept_logs(folder: Path, report: dict[str, Any], out: Path | None) -> Generator[None]:
    """Write the report with the workers' logs at the end, also of a run that is stopped."""
    try:
        yield
    finally:
        report["logs"] = {path.name: path.read_text(errors="replace")[-20_000:] for path in folder.glob("*.log")}
        write(report, out)


def _gpu_target(level: int) -> dict[str, Any]:
    return {"dtype": "float16", "build": {"optimization_level": level}}


if __name__ == "__main__":
    sys.exit(main())
