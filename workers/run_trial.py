"""The order of work in one attempt: check → build → measure → train → (quantize →) rebuild → remeasure → evaluate; of a
probe, which has no data and learns nothing, the first three.

What would happen again ends the trial here, as a `Finish` with its reason. What would not is raised: the causes of an
interruption, a child killed from outside (ChildDied), a service that is away for too long (Unreachable).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layers import metrics as declared
from layers import model as models
from layers import number_format, quantization, training
from layers.capabilities import unsupported
from layers.constraints import parse_constraint
from layers.signature import Signature, signature_of
from workers import parity
from workers.artifacts import ArtifactStore, collect
from workers.batches import DataError
from workers.child import Child, ChildDied, ChildError, ChildTimeout
from workers.children import Children
from workers.data import DatasetCache, check_lengths
from workers.device_lock import turns_of
from workers.engine_cache import EngineCache
from workers.inputs import data_inputs, probe_inputs, save_inputs
from workers.interruption import Pruned
from workers.lease import Lease
from workers.other_targets import try_builds
from workers.outcomes import Ended, Finish
from workers.parts import Form, TrialData, load_part, specials_of
from workers.service_client import Refused

logger = logging.getLogger("layersweep.worker")

MEASURE = {"warmup_seconds": 0.2, "seconds": 1.5, "min_runs": 50}
"""Of the untrained model: enough to judge constraints by."""

REMEASURE = {"warmup_seconds": 0.2, "seconds": 3.0, "min_runs": 100}
"""Of the trained model, or of a probe: the figures that are reported. It ends earlier once the median is certain."""

SAMPLE_DIGITS = 5
"""Decimals of the raw samples that are kept: hundredths of a microsecond."""

CALIBRATION_EXAMPLES = 128
"""Of the training part, spread evenly over it: the ranges of 8-bit products are found on these."""

CRASHES_AT_MOST = 2
"""A child that crashes by itself so often in one attempt would do so again."""

THREADED_RUNTIMES = ("onnxruntime",)
"""Runtimes that compute on the CPU and take a number of threads."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a request to a child may take, in seconds, before the child counts as hung."""

    prepare_seconds: float = 300
    export_seconds: float = 600
    build_seconds: float = 600
    load_seconds: float = 120
    run_seconds: float = 120
    measure_seconds: float = 120
    """From when it is its turn on the device."""
    evaluate_seconds: float = 3600
    silence_seconds: float = 300
    """Of a training or an evaluation by the engine, which have no end that is known before."""


@dataclass(slots=True)
class Worksite:
    """What an attempt works with: the same for all attempts of a worker, but for the folder."""

    children: Children
    datasets: DatasetCache
    capabilities: Mapping[str, Any]
    """Of the target that the lease names."""
    folder: Path
    """Of this attempt alone, and removed after it."""
    engines: EngineCache
    device_uuid: str
    limits: Limits = field(default_factory=Limits)
    artifacts: ArtifactStore | None = None
    """Where the files of a trial on the front go; None keeps none."""


def run_trial(lease: Mapping[str, Any], holder: Lease, site: Worksite) -> Finish:
    """Execute the attempt that `lease` (as the service gave it) describes; `holder` keeps it and carries reports.

    Raises Interrupted (LeaseLost, Cancelled, Drained), ChildDied where a child was killed from outside, Unreachable.
    """
    started_at = time.monotonic()
    crashes = 0
    while True:
        attempt = _Attempt(lease, holder, site)
        try:
            attempt.run()
            ended = None
        except Ended as end:
            ended = end
        except Pruned as cause:
            ended = Ended("pruned", str(cause))
        except ChildDied as death:
            crashes += 1
            site.children.kill()
            if death.killed_from_outside:
                raise
            if crashes < CRASHES_AT_MOST:
                holder.log(f"{death}; trying once more\n{death.tail}")
                logger.warning("trial %s: %s; trying once more", lease["trial"], death)
                continue
            ended = Ended("failed", f"{death}, {crashes} times: {_last_line(death.tail)}", death.tail)
        except ChildTimeout as hang:
            ended = Ended("failed", f"{hang}: it hung and was ended", hang.tail)
        except ChildError as error:
            if error.kind in ("internal", "out_of_memory"):
                site.children.discard_model()
                site.children.discard_builder()
            ended = Ended("failed", f"{_KINDS.get(error.kind, error.kind)}: {error.message}", error.tail)
        except DataError as error:
            ended = Ended("failed", str(error))
        except Refused as refusal:
            ended = Ended("failed", f"the dataset cannot be fetched: {refusal}")
        attempt.metrics["device_seconds"] = time.monotonic() - started_at
        return attempt.finish(ended)


_KINDS = {
    "build": "the engine cannot be built",
    "out_of_memory": "out of memory",
    "unsupported": "not supported by the target",
    "invalid": "invalid",
    "internal": "internal error",
}


class _Attempt:
    """One pass through the phases, and what is known so far."""

    def __init__(self, lease: Mapping[str, Any], holder: Lease, site: Worksite) -> None:
        self._lease = lease
        self._holder = holder
        self._site = site
        self._configuration: Mapping[str, Any] = lease["configuration"]
        self._folder = site.folder
        self._seconds: dict[str, float] = {}
        self._unproven: dict[str, tuple[str, dict[str, Any]]] = {}
        """Engines built and not yet held against the model: their key in the cache, and what the build said."""
        self._from_cache: list[str] = []
        self.metrics: dict[str, float] = {}
        self.measurements: dict[str, dict[str, Any]] = {}

    def run(self) -> None:
        """All phases in order. Raises Ended where the trial ends before the last."""
        if self._configuration["task"] == "probe":
            self._run_probe()
            self._site.children.close_engine()
        else:
            self._run_model()

    def _run_probe(self) -> None:
        self._timed("check", self._check_model)
        save_inputs(self._folder, probe_inputs(self._signature, self._configuration["model"]))
        engine = self._timed("build", lambda: self._build("final"))
        self.measurements["latency_samples_ms"] = self._timed("measure", lambda: self._measure(engine, REMEASURE))
        self._judge_hardware()

    def _run_model(self) -> None:
        data = self._timed("check", self._check)
        batches = data.validation().evaluation(self._configuration["inference"]["batch_size"])
        batches.save(self._folder / "validation.npz")
        save_inputs(self._folder, data_inputs(batches))
        if self._quantization != quantization.NONE:
            sample = data.training().evaluation(batches.targets.shape[1], at_most=CALIBRATION_EXAMPLES)
            sample.save(self._calibration_path)

        engine = self._timed("build", lambda: self._build("first"))
        first = self._timed("measure", lambda: self._measure(engine, MEASURE))
        self.measurements["latency_first"] = first
        self._judge_hardware()

        self._timed("train", lambda: self._train(data))

        if self._quantization == quantization.NONE:
            self._timed("rebuild", lambda: self._export_and_build("final"))
        else:
            self._timed("quantize", lambda: self._export("final"))
            self._timed("rebuild", lambda: self._build_exported("final"))
        engine, final = self._timed("remeasure", self._remeasure)
        self.measurements["latency_samples_ms"] = final

        self._timed("evaluate", lambda: self._evaluate(engine, data))
        self._site.children.close_engine()
        self._keep_artifacts()

    def finish(self, ended: Ended | None) -> Finish:
        """The result so far, with the outcome that ended it."""
        cost: dict[str, Any] = {f"{phase}_seconds": seconds for phase, seconds in self._seconds.items()}
        cost["engines_from_cache"] = self._from_cache
        metrics = {name: value for name, value in self.metrics.items() if math.isfinite(value)}
        measurements = {**self.measurements, "cost": cost}
        if ended is None:
            return Finish("complete", None, metrics, measurements)
        return Finish(ended.outcome, ended.reason, metrics, measurements, ended.log)

    # --- phases -----------------------------------------------------------------------------------------------------

    def _check_model(self) -> None:
        """Can this be built here at all?"""
        model = self._configuration["model"]
        if broken := models.broken_rules(model):
            raise Ended("failed", f"the model breaks a rule: {broken[0].message}")
        if lack := unsupported(model, self._site.capabilities):
            raise Ended("infeasible", lack)

    def _check(self) -> TrialData:
        """The same, and is its data here?"""
        self._check_model()
        task, dataset = self._configuration["task"], self._lease["dataset"]
        if dataset is None or dataset["task"] != task:
            raise Ended("failed", f"{task} needs a dataset of its kind; the lease names {dataset and dataset['name']}")
        for section in ("training", "inference") if task == "causal_lm" else ():
            # Rows and pairs are filled up to any length; of a text there are windows.
            check_lengths(dataset, self._configuration[section]["sequence_length"])
        interruption = self._holder.interruption
        paths = {name: self._site.datasets.part(dataset, name, interruption) for name in ("training", "validation")}
        names = [given.name for given in self._signature.inputs]
        specials = specials_of(dataset["facts"])
        return TrialData(task, paths, Form.of(names, self._configuration["inference"], specials))

    def _build(self, name: str) -> Child:
        """Random weights → ONNX → engine; answers the process that has it loaded, once it was seen to be the model."""
        prepared = self._ask_model("prepare", {"configuration": self._configuration}, self._site.limits.prepare_seconds)
        self.metrics["parameter_count"] = prepared["parameter_count"]
        shape = self._configuration["inference"]
        self.metrics["flops"] = models.flops(
            self._configuration["model"], shape["batch_size"], shape["sequence_length"], shape.get("source_length")
        )
        self._export_and_build(name)
        engine = self._load(name)
        self._check_parity(engine, name)
        return engine

    def _export_and_build(self, name: str) -> None:
        self._export(name)
        self._build_exported(name)

    def _export(self, name: str) -> None:
        """The model's graph, quantized where it is to be, and that of its loss."""
        losses = {"loss_path": str(self._loss_path)} if self._has_loss else {}
        exported = self._write_graph(self._onnx_path(name), self._site.capabilities["opset"], **losses)
        self._seconds[f"export_{name}"] = exported["seconds"]
        if self._quantization != quantization.NONE:
            self.measurements["quantization"] = {"products": exported["quantized_products"]}

    def _write_graph(self, path: Path, opset: int, **more: str) -> dict[str, Any]:
        arguments = {"path": str(path), "opset": opset, "calibration": str(self._calibration_path), **more}
        return self._ask_model("export", arguments, self._site.limits.export_seconds)

    def _build_exported(self, name: str) -> None:
        self._take_metrics(self._build_engine(name, self._onnx_path(name), self._build_options))
        if self._has_loss:
            self._build_engine("loss", self._loss_path, {})

    def _build_engine(self, name: str, onnx: Path, options: Mapping[str, int]) -> dict[str, Any]:
        """Build `onnx`, or take the engine of an earlier build of the same; answers what the build said."""
        site, runtime = self._site, self._lease["runtime"]
        started_at = time.monotonic()
        key = site.engines.key(
            onnx, runtime=runtime, version=site.capabilities["version"], device=site.device_uuid, options=dict(options)
        )
        built = site.engines.take(key, self._engine_path(name))
        if built is not None:
            self._from_cache.append(name)
        else:
            built = self._ask(
                site.children.builder(),
                "build",
                {
                    "runtime": runtime,
                    "onnx": str(onnx),
                    "engine": str(self._engine_path(name)),
                    "options": options,
                    "timings": site.engines.timings and str(site.engines.timings),
                },
                timeout_seconds=site.limits.build_seconds,
            )
            self._unproven[name] = key, built
        self._seconds[f"build_{name}"] = time.monotonic() - started_at
        return built

    def _keep_engine(self, name: str) -> None:
        """Keep an engine for later trials, now that it was seen to be the model's: a wrong one would fail them too."""
        if name in self._unproven:
            key, built = self._unproven.pop(name)
            self._site.engines.keep(key, self._engine_path(name), built)

    @property
    def _build_options(self) -> dict[str, int]:
        options = training.build_options(self._configuration["inference"])
        return {**options, "tf32": 1} if "tf32" in self._formats else options

    @property
    def _formats(self) -> set[str]:
        """The number formats of the model and its layers."""
        return set(number_format.formats(self._configuration["model"]).values())

    def _measure(self, engine: Child, options: Mapping[str, float]) -> dict[str, Any]:
        """Latency of the loaded engine; answers all that was measured."""
        measured = self._ask(
            engine,
            "measure",
            {"inputs": str(self._folder / "measure.npz"), "options": options, "turns": self._turns},
            timeout_seconds=None,
            silence_seconds=self._site.limits.measure_seconds,
            on_progress=self._on_measuring,
        )
        self._take_metrics(measured)
        self.metrics["throughput_per_s"] = measured["runs_per_s"] * self._configuration["inference"]["batch_size"]
        samples = [round(sample, SAMPLE_DIGITS) for sample in measured["samples_ms"]]
        self.measurements["environment"] = {**measured["environment"], "target": self._lease["target_key"]}
        self.measurements["memory"] = {
            name: self.metrics[name] for name in declared.METRICS if name.endswith("_bytes") and name in self.metrics
        }
        return {**measured, "samples_ms": samples}

    def _judge_hardware(self) -> None:
        """End the trial if a constraint that is known by now is broken: nothing is trained for it."""
        values = {**_named(self._configuration), **self.metrics}
        for text in self._lease["constraints"]:
            constraint = parse_constraint(text)
            if constraint.stage == "quality":
                continue
            violation = constraint.violation(values)
            if violation is not None and violation > 0:
                found = ", ".join(f"{name} = {values[name]:.6g}" for name in constraint.metrics)
                raise Ended("infeasible", f"{text} is broken by {violation:.4g}: {found}")

    def _train(self, data: TrialData) -> None:
        self._site.children.close_engine()
        trained = self._ask(
            self._site.children.model(),
            "train",
            {
                **{name: str(path) for name, path in data.paths.items()},
                "specials": dict(data.form.specials),
                "turns": self._turns,
            },
            timeout_seconds=None,
            silence_seconds=self._site.limits.silence_seconds,
            on_progress=self._on_training,
        )
        self.metrics["train_seconds"] = trained["seconds"]
        self.measurements["training"] = trained
        if trained["reason"]:
            self._holder.log(f"step {trained['steps']}: {trained['reason']}")
        if trained["stopped"] == "diverged":
            raise Ended("pruned", trained["reason"])
        if trained["stopped"] == "non_finite":
            raise Ended("failed", trained["reason"])

    def _remeasure(self) -> tuple[Child, dict[str, Any]]:
        engine = self._load("final")
        return engine, self._measure(engine, REMEASURE)

    def _evaluate(self, engine: Child, data: TrialData) -> None:
        """Parity of the trained engine, then its loss, the reference's, and that on as many training examples."""
        self._check_parity(engine, "final")
        validation = str(self._folder / "validation.npz")
        sums = self._engine_loss(engine, validation)
        limit = self._site.limits.evaluate_seconds
        reference = self._ask_model("evaluate", {"batches": validation}, limit)
        batch_size = self._configuration["inference"]["batch_size"]
        sample = data.training().evaluation(batch_size, at_most=len(data.validation()))
        sample.save(self._folder / "training.npz")
        fitted = self._ask_model("evaluate", {"batches": str(self._folder / "training.npz")}, limit)
        loss = sums["loss_sum"] / sums["weight_sum"]
        self.measurements["loss_blocks"] = {"validation": _blocks(sums)}
        self.metrics |= {
            "validation_loss": loss,
            "reference_loss": reference["loss"],
            "precision_gap": loss - reference["loss"],
            "training_loss": fitted["loss"],
            "generalization_gap": reference["loss"] - fitted["loss"],
        }
        self._keep_engine("loss")
        if data.task != "causal_lm":
            self.metrics["accuracy"] = sums["correct"] / sums["weight_sum"]
        elif self._lease["dataset"]["facts"].get("tokenizer") == "byte":
            self.metrics["bits_per_byte"] = loss / math.log(2)
        if "test" in self._lease["dataset"]["parts"]:
            self._score_test_part(engine, data)
            self._try_other_targets()

    def _score_test_part(self, engine: Child, data: TrialData) -> None:
        """The loss on the part that no sweep has seen: the lease names it for the attempts of a confirmation alone."""
        path, store = self._folder / "test-part.npz", self._site.artifacts
        if store is None or store.test_part(path) != self._lease["dataset"]["parts"]["test"]["sha256"]:
            raise Ended("failed", "the test part did not come as the lease names it")
        batches = self._folder / "test.npz"
        part = load_part(path, data.task, data.form)
        part.evaluation(self._configuration["inference"]["batch_size"]).save(batches)
        sums = self._engine_loss(engine, str(batches))
        self.metrics["test_loss"] = sums["loss_sum"] / sums["weight_sum"]
        self.measurements["loss_blocks"] = {**self.measurements["loss_blocks"], "test": _blocks(sums)}

    def _try_other_targets(self) -> None:
        """What a confirmation says about compatibility: whether the trained model builds elsewhere."""

        builds = try_builds(self._site.children, self._folder, self._write_graph, self._holder.interruption)
        if builds:
            self.measurements["builds"] = builds

    def _engine_loss(self, engine: Child, batches: str) -> dict[str, Any]:
        return self._ask(
            engine,
            "loss",
            {"loss_graph": str(self._engine_path("loss")), "batches": batches},
            timeout_seconds=None,
            silence_seconds=self._site.limits.silence_seconds,
            on_progress=lambda progress: self._holder.progress(**progress),
        )

    def _keep_artifacts(self) -> None:
        """Upload the trial's files where the service wants them: where it is on the front now, or a confirmation's."""
        store = self._site.artifacts
        wanted = [] if store is None else store.wants(self.metrics)
        if store is None or not wanted:
            return
        weights = self._folder / "weights.safetensors"
        self._ask_model("save", {"path": str(weights)}, self._site.limits.export_seconds)
        description = {
            "trial": self._lease["trial"],
            "runtime": self._lease["runtime"],
            "target": self._lease["target_key"],
            "configuration": self._configuration,
            "dataset": {name: self._lease["dataset"][name] for name in ("name", "sha256", "facts")},
            "metrics": self.metrics,
            "environment": self.measurements["environment"],
        }
        files = {
            "weights.safetensors": weights,
            "model.onnx": self._folder / "final.onnx",
            "model.engine": self._engine_path("final"),
            "loss.engine": self._engine_path("loss"),
        }
        found = collect(self._folder / "artifacts", description, files, self._folder / "validation.npz")
        for name in wanted:
            if name in found:
                store.upload(name, found[name])

    # --- steps ------------------------------------------------------------------------------------------------------

    def _timed(self, phase: str, work: Callable[[], Any]) -> Any:
        self._holder.interruption.check()
        self._holder.phase(phase)
        started_at = time.monotonic()
        try:
            return work()
        finally:
            self._seconds[phase] = time.monotonic() - started_at

    def _load(self, name: str) -> Child:
        """A fresh process with the engine loaded."""
        engine = self._site.children.fresh_engine()
        runtime = self._lease["runtime"]
        options = {"threads": self._site.children.threads} if runtime in THREADED_RUNTIMES else {}
        loaded = self._ask(
            engine,
            "load",
            {"runtime": runtime, "engine": str(self._engine_path(name)), "options": options},
            timeout_seconds=self._site.limits.load_seconds,
        )
        self._take_metrics(loaded)
        built = ("weights_bytes", "activation_bytes", "io_bytes")
        self.metrics["memory_bytes"] = sum(self.metrics[name] for name in built)
        return engine

    def _check_parity(self, engine: Child, name: str) -> None:
        """Hold the engine's logits against PyTorch's on a batch of validation inputs; a quantized engine's against its
        quantized graph's, so that what is off is the engine and not the rounding that was asked for."""
        inputs, ours, theirs = (self._folder / f"{each}.npz" for each in ("parity", "engine", "reference"))
        limits, dtype = self._site.limits, parity.coarsest(self._formats)
        arguments = {"inputs": str(inputs), "outputs": str(ours)}
        self._ask(engine, "run", arguments, timeout_seconds=limits.run_seconds)
        arguments["outputs"] = str(theirs)
        if self._quantization != quantization.NONE:
            dtype = f"{dtype} quantized to {self._quantization}"
            arguments["graph"] = str(self._onnx_path(name))
        self._ask_model("reference", arguments, limits.run_seconds)
        found = parity.compare_files(ours, theirs, self._signature.outputs[0].name)
        self.metrics |= {"parity_error": found.error, "parity_error_worst": found.worst}
        tolerance = parity.tolerance(parity.coarsest(self._formats), self._quantization)
        measured = {"error": found.error, "worst": found.worst} if math.isfinite(found.error + found.worst) else {}
        self.measurements["parity"] = {
            **self.measurements.get("parity", {}),
            name: measured,
            "tolerance": tolerance,
            "tolerance_worst": tolerance * parity.WORST_TOKEN_FACTOR,
        }
        if not found.kept(tolerance):
            allowed = f"{tolerance:g} ({tolerance * parity.WORST_TOKEN_FACTOR:g})"
            raise Ended(
                "failed",
                f"parity: the engine's logits are off by {found.error:.3g} ({found.worst:.3g} at the worst token), "
                f"{dtype} allows {allowed}: it computes another function",
            )
        self._keep_engine(name)

    def _on_training(self, progress: dict[str, Any]) -> None:
        """Pass on a point of the curve, or only how far it is."""
        fraction = min(1.0, progress.pop("fraction"))
        waits = {"waiting_for": "a measurement on this device"} if progress.pop("waiting", False) else {}
        self._holder.progress(
            progress if "learning_rate" in progress else None,
            step=progress["step"],
            fraction=round(fraction, 4),
            **waits,
        )

    def _on_measuring(self, progress: dict[str, Any]) -> None:
        """Pass on that a measurement waits, or that it did."""
        waits = {"waiting_for": "its turn on this device"} if progress.pop("waiting", False) else {}
        self._holder.progress(**waits, **progress)

    @property
    def _turns(self) -> str:
        return str(turns_of(self._site.device_uuid))

    def _ask_model(self, verb: str, arguments: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
        return self._ask(self._site.children.model(), verb, arguments, timeout_seconds=timeout_seconds)

    def _ask(self, child: Child, verb: str, arguments: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        return child.request(verb, arguments, interruption=self._holder.interruption, **options)

    def _take_metrics(self, result: Mapping[str, Any]) -> None:
        known = {name: value for name, value in result.items() if name in declared.METRICS}
        self.metrics |= {name: value for name, value in known.items() if value is not None}

    @property
    def _quantization(self) -> str:
        return quantization.of_model(self._configuration["model"])

    @property
    def _has_loss(self) -> bool:
        return self._configuration["task"] != "probe"

    @property
    def _calibration_path(self) -> Path:
        """Inputs that the ranges of 8-bit products are found on: of the training part, or a probe's own."""
        return self._folder / ("calibration.npz" if self._has_loss else "measure.npz")

    def _onnx_path(self, name: str) -> Path:
        return self._folder / f"{name}.onnx"

    def _engine_path(self, name: str) -> Path:
        return self._folder / f"{name}.engine"

    @property
    def _loss_path(self) -> Path:
        return self._folder / "loss.onnx"

    @property
    def _signature(self) -> Signature:
        """Of the model at the shape that is measured."""
        return signature_of(self._configuration)


def _blocks(sums: Mapping[str, Any]) -> dict[str, list[float]]:
    """The loss along a part, from which the service says how certain its mean is."""
    return {"loss_sums": sums["block_loss_sums"], "weight_sums": sums["block_weight_sums"]}


def _named(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by the names that constraints use: bare below `model`, else with their section."""
    named = dict(configuration["model"])
    for section in ("training", "inference"):
        named |= {f"{section}.{name}": value for name, value in configuration[section].items()}
    return {name: value for name, value in named.items() if value is not None}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
