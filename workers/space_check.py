"""How much of a sweep's space builds, before any time on a GPU is spent: points are exported and built for real.

Nothing is trained and nothing runs, so that a builder which needs no GPU (`tensorrt_rtx`) tells it on any machine.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NotRequired, TypeVar, cast

from layers.capabilities import Capabilities
from layers.configuration import Configuration, TrialConfiguration
from layers.dataset_facts import DatasetDescription, facts_of
from layers.declarations import dtypes
from layers.declarations.inference.generation import GenerationConfig
from layers.declarations.inference.mode import GENERATE
from layers.parameter import Scalar
from layers.signature import signature_of
from layers.space.document import read_document
from layers.space.space import Space
from layersweep.records.checks import BuildFinding, BuildOutcome, BuildReason, SpaceCheckReport
from workers.data.inputs import probe_inputs, save_inputs
from workers.devices import device
from workers.engine.protocol import JsonObject
from workers.engine.tensorrt import support
from workers.engine.verbs import BUILD, DESCRIBE, BuildAnswer
from workers.processes.child import ChildError, ChildRequestError
from workers.processes.children import Children
from workers.processes.model_verbs import EXPORT, EXPORT_GENERATION, PREPARE
from workers.service.messages import SplitAnswer
from workers.trial.context import Limits

DESCRIBE_SECONDS = 120.0
MOST_DRAWS = 10_000
"""Points that are drawn at most in search of those that keep the rules."""
MOST_CAPABILITY = 100
MOST_REASON = 1000
"""Characters of what a builder says that are told."""
ANY_MEMORY_BYTES = 1 << 50
"""A builder without a GPU has no device whose memory could be too small."""

Number = TypeVar("Number", int, float)


class NoBuilderError(Exception):
    """The runtime cannot build here; the message says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one point. `infeasible`: the target lacks something for it, so that no builder was asked."""

    outcome: BuildOutcome
    reason: str | None
    parameters: dict[str, Scalar]
    build_seconds: float | None = None
    engine_bytes: int | None = None
    weights_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """The points to try, and how many were drawn that break a rule, which no trial will have."""

    points: list[dict[str, Scalar]]
    broken: int
    whole: bool
    """Whether they are all that there are."""


class RecordedDataset(DatasetDescription):
    """A registered dataset, or one that every installation has: the size of its splits is not known before."""

    parts: NotRequired[dict[str, SplitAnswer]]


def read_space(document: JsonObject, dataset: RecordedDataset | None) -> Space:
    """The space of a document. Raises DocumentError, also if none of its points can become a trial.

    dataset: the record of the one that it names. Starts are left out: they are points like any others.
    """
    about: DatasetDescription | None = dataset and {
        "task": dataset["task"],
        "tokenizer": dataset["tokenizer"],
        "facts": facts_of(dataset["task"], dataset["facts"], dataset.get("parts", {})),
    }
    sweep, _ = read_document({**document, "start_from": []}, find_dataset=lambda name: about)
    return sweep.space


def sample(space: Space, count: int, seed: int) -> Sample:
    """Points that keep the rules: all of a space that has no more than `count`, else so many at random, none twice."""
    if (size := space.points()) is not None and size <= count:
        every = [space.resolve(chosen) for chosen in space.enumerate()]
        kept = [values for values in every if space.judge(values) is None]
        return Sample(kept, len(every) - len(kept), whole=True)
    source = random.Random(seed)
    found: dict[str, dict[str, Scalar]] = {}
    broken = 0
    for _ in range(MOST_DRAWS):
        values = space.resolve(space.sample(source))
        if space.judge(values) is not None:
            broken += 1
        else:
            found.setdefault(repr(sorted(values.items())), values)
        if len(found) == count:
            break
    return Sample(list(found.values()), broken, whole=False)


class SpaceCheck:
    """Builds points by one runtime, in children that are kept between them. Close it at the end."""

    def __init__(
        self, runtime: str, *, compute_capability: float | None = None, engine_python: str | None = None
    ) -> None:
        """`compute_capability`: what is built for, if the builder can choose (default: this machine's GPU).

        Raises NoBuilderError.
        """
        self._runtime = runtime
        if compute_capability is not None and not 1 <= compute_capability < MOST_CAPABILITY:
            raise NoBuilderError(f"compute capability {compute_capability} is none: write it as 8.9")
        self._options = {} if compute_capability is None else {"compute_capability": round(10 * compute_capability)}
        gpu = device.chosen(None)
        self._children = Children(threads=1, engine_python=engine_python, gpu_uuid=gpu.uuid if gpu else None)
        try:
            found = self._children.builder().request(DESCRIBE, {"runtime": runtime}, timeout_seconds=DESCRIBE_SECONDS)
        except (ChildError, OSError) as failure:
            self.close()
            raise NoBuilderError(str(failure)) from failure
        if compute_capability is not None:
            if runtime != "tensorrt_rtx":
                self.close()
                raise NoBuilderError(
                    f"{runtime} builds for the device that it is on: only tensorrt_rtx takes another's"
                )
            limits = support.limits(runtime, found["version"], divmod(self._options["compute_capability"], 10))
            found["dtypes"] = list(limits.dtypes)
            found["quantizations"] = list(limits.quantizations)
            found["lacks"] = dict(limits.lacks)
            found["device_model"] = f"compute capability {compute_capability}"
        elif found.get("build_only"):
            found["device_model"] = "every GPU that it knows: no --compute-capability was given"
        found["device_memory_bytes"] = found["device_memory_bytes"] or ANY_MEMORY_BYTES
        self.capabilities: Capabilities = {**found}

    def close(self) -> None:
        self._children.kill()

    def findings(self, space: Space, points: list[dict[str, Scalar]]) -> Iterator[Finding]:
        """What becomes of each point, one after the other."""
        for values in points:
            yield self._finding(space, values)

    def _finding(self, space: Space, values: dict[str, Scalar]) -> Finding:
        parameters = space.shown(values)
        if lack := space.judge(values, self.capabilities):
            return Finding("infeasible", lack.message, parameters)
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="layersweep-check-") as folder:
            try:
                built = self._build(space.configuration(values), Path(folder))
            except ChildError as failure:
                self._children.discard_builder()
                if not isinstance(failure, ChildRequestError):
                    self._children.discard_model()
                # Each point has a folder of its own; without it, points that fail for one reason are told together.
                reason = str(failure).replace(f"{folder}/", "")[:MOST_REASON]
                return Finding("fails", reason, parameters, time.monotonic() - started)
        return Finding(
            "builds", None, parameters, built["build_seconds"], built["engine_bytes"], built["weights_bytes"]
        )

    def _build(self, configuration: Configuration, folder: Path) -> BuildAnswer:
        """Build at each shape; the answer has the time of all, and the sizes of the largest engine."""
        trial = TrialConfiguration.of(configuration)
        self._children.model().request(
            PREPARE, {"configuration": configuration}, timeout_seconds=Limits().prepare_seconds
        )
        shapes = [trial.at(shape) for shape in trial.shapes] or [trial]
        built = [
            self._build_graph(shape, graph)
            for shape in shapes
            for graph in (self._export(shape, folder), *self._export_generation(shape, folder))
        ]
        largest = max(built, key=lambda answer: answer["engine_bytes"])
        return {**largest, "build_seconds": sum(answer["build_seconds"] for answer in built)}

    def _export(self, trial: TrialConfiguration, folder: Path) -> Path:
        """The graph at a shape."""
        # A quantized graph has ranges; which ones does not decide whether it builds.
        save_inputs(folder, probe_inputs(signature_of(trial), trial.model))
        shapes = {"inference": trial.document["inference"]} if trial.shapes else {}
        graph = folder / "model.onnx"
        export = {"path": str(graph), "opset": self.capabilities["opset"], **shapes}
        self._children.model().request(
            EXPORT, {**export, "calibration": str(folder / "measure.npz")}, timeout_seconds=Limits().export_seconds
        )
        return graph

    def _export_generation(self, trial: TrialConfiguration, folder: Path) -> tuple[Path, ...]:
        """The graphs of a prompt and of a step with the largest caches; none if nothing is generated."""
        if trial.inference.mode != GENERATE:
            return ()
        inference = trial.document["inference"]
        capacity = GenerationConfig.of(trial.model, inference).capacity
        prefill, step = folder / "prefill.onnx", folder / "step.onnx"
        arguments = {
            "prefill": str(prefill),
            "steps": {str(capacity): str(step)},
            "opset": self.capabilities["opset"],
            "inference": inference,
        }
        self._children.model().request(EXPORT_GENERATION, arguments, timeout_seconds=Limits().export_seconds)
        return prefill, step

    def _build_graph(self, trial: TrialConfiguration, graph: Path) -> BuildAnswer:
        tf32 = {"tf32": 1} if "tf32" in dtypes.by_parameter(trial.model).values() else {}
        return self._children.builder().request(
            BUILD,
            {
                "runtime": self._runtime,
                "onnx": str(graph),
                "engine": str(graph.with_suffix(".engine")),
                "options": {**trial.inference.build_options(), **tf32, **self._options},
            },
            timeout_seconds=Limits().build_seconds,
        )


def report(checked: Sample, findings: list[Finding], capabilities: Capabilities) -> SpaceCheckReport:
    """All that there is to say, as JSON."""
    built = [finding for finding in findings if finding.outcome == "builds"]
    return {
        "target": {
            "runtime": capabilities["runtime"],
            "version": capabilities["version"],
            "device_model": capabilities["device_model"],
        },
        "whole_space": checked.whole,
        "points": len(findings),
        "break_a_rule": checked.broken,
        "outcomes": dict(Counter(finding.outcome for finding in findings)),
        "reasons": _reasons(findings),
        "build_seconds": _range([finding.build_seconds for finding in built]),
        "engine_bytes": _range([finding.engine_bytes for finding in built]),
        "weights_bytes": _range([finding.weights_bytes for finding in built]),
        "findings": [cast("BuildFinding", asdict(finding)) for finding in findings],
    }


def _reasons(findings: list[Finding]) -> list[BuildReason]:
    """Why points do not build, what most have first. `shared`: values that its points have and others lack."""
    groups: dict[tuple[BuildOutcome, str], list[Finding]] = {}
    for finding in findings:
        if finding.reason is not None:
            groups.setdefault((finding.outcome, finding.reason), []).append(finding)
    everywhere = _shared(findings) if groups else {}
    return [
        {
            "outcome": outcome,
            "reason": reason,
            "points": len(group),
            "shared": {name: value for name, value in _shared(group).items() if name not in everywhere},
        }
        for (outcome, reason), group in sorted(groups.items(), key=lambda each: -len(each[1]))
    ]


def _shared(findings: list[Finding]) -> dict[str, Scalar]:
    """The parameters that have one value in all of them."""
    first, *others = findings
    return {
        name: value
        for name, value in first.parameters.items()
        if all(name in other.parameters and other.parameters[name] == value for other in others)
    }


def _range(values: Iterable[Number | None]) -> tuple[Number, Number] | None:
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if known else None
