"""A sweep document's own fields: everything but the parameters and the expressions over them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, NotRequired, TypedDict, cast

from layers.dataset_facts import DatasetDescription
from layers.declarations.inference.mode import FORWARD
from layers.declarations.kinds import TASKS
from layers.expressions.metric_names import MetricNameError, MetricNames
from layers.metrics import Goal
from layers.metrics import metric as declaration_of
from layers.problems import Problem, Problems, below, did_you_mean, shown
from layers.space.checks.lacking_metrics import remedy_of_lacking
from layers.space.replicates import read_replicates
from layers.wanted_target import TARGET_FIELDS, WantedTarget, read_wanted_target

FIELDS = (
    "name",
    "task",
    "dataset",
    "variables",
    "model",
    "training",
    "inference",
    "objectives",
    "constraints",
    "rules",
    "budget",
    "search",
    "start_from",
    "require",
    "target",
    "allow_sparse",
)
REQUIREMENTS = ("transformers_export",)
"""What every point can be required to be: of an architecture of `transformers` (layers.checkpoints)."""
SAMPLERS = ("auto", "tpe", "nsga2", "surrogate", "gp", "qmc", "random", "grid")
HARDWARE_FIRST = ("auto", "always", "never")
PRUNERS = ("auto", "none", "pareto", "asha")
_MEASURED = ". auto measures before training only where a constraint can end a trial by what is measured"
TITLE_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
"""Of a sweep's name: one line, and not only spaces."""

BUDGET: dict[str, tuple[int, int, int]] = {"trials": (100, 1, 1_000_000), "failures": (10, 1, 1_000_000)}
"""Field -> default, least, most."""

AUTO: Final = "auto"
"""`budget.parallel` of a sweep that runs as many trials at once as the workers have slots for it. The default."""

MAX_PARALLEL = 1_024

MAX_OBJECTIVES = 8
MAX_EXPRESSIONS = 100
MAX_STARTS = 100
MAX_SECONDS = 31_536_000
MAX_SEED = 2**32 - 1

FindDataset = Callable[[str], DatasetDescription | None]
FindStart = Callable[[str], Mapping[str, object] | None]
"""Answers a trial's configuration, or its values by flat names."""


class Objective(TypedDict):
    """A metric, and whether it is to be minimized or maximized."""

    metric: str
    goal: Goal


class Budget(TypedDict):
    """How much a sweep may take."""

    trials: int
    parallel: int | Literal["auto"]
    failures: int
    wall_seconds: float | None
    device_seconds: NotRequired[float | None]
    """Absent in sweeps of older versions."""


class SearchSettings(TypedDict):
    """How a sweep chooses its points."""

    sampler: str
    seed: int
    reuse: bool
    hardware_first: str
    transfer: NotRequired[bool]
    """Only if it is asked for."""
    device_model: NotRequired[bool]
    replicates: NotRequired[int | Literal["auto"]]
    """How often a trial is trained again at most; absent: never."""
    pruner: NotRequired[str]
    """Only if one is named."""


class FieldReader:
    """Reads the document's own fields one by one, fills in their defaults, and collects what is wrong with them and
    what is worth a note."""

    def __init__(self, document: Mapping[Any, Any], problems: Problems, notes: list[Problem]) -> None:
        self._document = document
        self._problems = problems
        self._notes = notes

    def fields(self) -> None:
        """Note every field that is none of a sweep document's."""
        self._known("", self._document, FIELDS)

    def name(self) -> str:
        name = self._document.get("name")
        remedy = "give the sweep a name of 1 to 200 characters"
        if name is None:
            self._problems.add("/name", "the sweep has no name", remedy)
            return ""
        if not isinstance(name, str) or not name.strip() or len(name) > 200:
            self._problems.add("/name", f"{shown(name)} is not a name", remedy)
            return ""
        if any(unicodedata.category(character).startswith("C") for character in name):
            self._problems.add("/name", f"{shown(name)} has characters that cannot be shown", "leave them out")
        return name

    def task(self) -> str:
        task = self._document.get("task")
        remedy = f"one of: {', '.join(TASKS)}"
        if task is None:
            self._problems.add("/task", "the sweep has no task", remedy)
        elif task not in TASKS:
            self._problems.add("/task", f"{shown(task)} is not a task that Layersweep trains", remedy)
        else:
            return cast("str", task)
        return ""

    def dataset(self, task: str, find_dataset: FindDataset) -> tuple[str | None, DatasetDescription | None]:
        """The dataset's name, and what `find_dataset` says of it (None if there is none, or it is not known)."""
        name = self._document.get("dataset")
        if task == "probe":
            if name is not None:
                self._problems.add("/dataset", "a probe has no dataset", "leave it out, or choose another task")
            return None, None
        if name is None:
            self._problems.add("/dataset", "the sweep has no dataset", "name a registered dataset")
            return None, None
        if not isinstance(name, str):
            self._problems.add("/dataset", f"{shown(name)} is not a dataset's name", "name a registered dataset")
            return None, None
        dataset = find_dataset(name)
        if dataset is None:
            remedy = "register it first, or use a registered one: python-topics is always there"
            self._problems.add("/dataset", f"there is no dataset {shown(name)}", remedy)
            return name, None
        if task and dataset["task"] != task:
            detail = f"{name} is a dataset for {dataset['task']}, not for {task}"
            self._problems.add("/dataset", detail, f"set task: {dataset['task']}, or name a dataset for {task}")
        return name, dataset

    def objectives(self, metrics: MetricNames, has_metric: Callable[[str], str | None]) -> tuple[Objective, ...]:
        """The objectives, each with its goal. `has_metric` says why one of `metrics` cannot be had, or None."""
        written = self._list("objectives", "give 1 or more, for example [{metric: latency_ms_p50}]")
        if not written and "objectives" not in self._document:
            self._problems.add(
                "/objectives", "the sweep has no objectives", "give 1 or more, for example [{metric: latency_ms_p50}]"
            )
        elif isinstance(self._document["objectives"], list) and not written:
            self._problems.add(
                "/objectives",
                "the list of objectives is empty",
                "give 1 or more, for example [{metric: latency_ms_p50}]",
            )
        if len(written) > MAX_OBJECTIVES:
            self._problems.add(
                "/objectives",
                f"{len(written)} objectives",
                f"give at most {MAX_OBJECTIVES}: make the others constraints",
            )
        objectives: list[Objective] = []
        for index, item in enumerate(written[:MAX_OBJECTIVES]):
            objective = self._objective(below("/objectives", index), item, metrics, has_metric)
            if objective is None:
                continue
            if any(objective["metric"] == other["metric"] for other in objectives):
                self._problems.add(
                    below("/objectives", index), f"{objective['metric']} is an objective already", "leave it out"
                )
            objectives.append(objective)
        return tuple(objectives)

    def _objective(
        self, pointer: str, item: Any, metrics: MetricNames, has_metric: Callable[[str], str | None]
    ) -> Objective | None:
        if not isinstance(item, Mapping):
            self._problems.add(
                pointer, f"{shown(item)} is not an objective", "write {metric: latency_ms_p50, goal: minimize}"
            )
            return None
        self._known(pointer, item, ("metric", "goal"))
        written, goal = item.get("metric"), item.get("goal")
        try:
            metric = metrics.resolve(str(written))
        except MetricNameError as error:
            named = error.message if isinstance(written, str) else f"{shown(written)} is not a metric"
            detail = named if "metric" in item else "the objective names no metric"
            self._problems.add(below(pointer, "metric"), detail, error.remedy)
            return None
        lacking = has_metric(metric)
        if lacking is not None:
            self._problems.add(below(pointer, "metric"), lacking, remedy_of_lacking(metric, self.generates()))
        if goal is not None and goal not in ("minimize", "maximize"):
            self._problems.add(below(pointer, "goal"), f"{shown(goal)} is not a goal", "write minimize or maximize")
        own = declaration_of(metric).goal
        if goal in ("minimize", "maximize") and goal != own:
            better = "lower" if own == "minimize" else "higher"
            detail = f"{metric} is better where it is {better}, and goal: {goal} looks for the opposite"
            self._notes.append(Problem(below(pointer, "goal"), detail, "leave goal out, unless that is meant"))
        return {"metric": metric, "goal": goal if goal in ("minimize", "maximize") else own}

    def budget(self) -> Budget:
        written = self._mapping("budget", ("trials", "parallel", "failures", "wall_seconds", "device_seconds"))
        return {
            "trials": self._integer("/budget", written, "trials", *BUDGET["trials"]),
            "parallel": self._parallel(written),
            "failures": self._integer("/budget", written, "failures", *BUDGET["failures"]),
            "wall_seconds": self._seconds(written, "wall_seconds", "wall-clock limit"),
            "device_seconds": self._seconds(written, "device_seconds", "limit of device time"),
        }

    def _parallel(self, written: Mapping[Any, Any]) -> int | Literal["auto"]:
        parallel = written.get("parallel", AUTO)
        is_count = _is_number(parallel, 1, MAX_PARALLEL, above=False) and parallel == int(parallel)
        if parallel != AUTO and not is_count:
            remedy = f"{AUTO}, or an integer from 1 to {MAX_PARALLEL:,}"
            self._problems.add("/budget/parallel", f"{shown(parallel)} is not in range", remedy)
        return int(parallel) if is_count else AUTO

    def _seconds(self, written: Mapping[Any, Any], field: str, what: str) -> float | None:
        seconds = written.get(field)
        if seconds is not None and not _is_number(seconds, 0, MAX_SECONDS, above=True):
            remedy = f"a number of seconds above 0 and at most {MAX_SECONDS:,}"
            self._problems.add(below("/budget", field), f"{shown(seconds)} is not a {what}", remedy)
            return None
        return None if seconds is None else float(seconds)

    def search(self) -> SearchSettings:
        known = ("sampler", "seed", "reuse", "transfer", "hardware_first", "replicates", "pruner", "device_model")
        written = self._mapping("search", known)
        search: SearchSettings = {
            "sampler": self._choice("sampler", written, SAMPLERS, "a sampler"),
            "seed": self._integer("/search", written, "seed", 0, 0, MAX_SEED),
            "reuse": self._boolean("/search/reuse", written.get("reuse", True), True),
            "hardware_first": self._choice("hardware_first", written, HARDWARE_FIRST, "an order of work", _MEASURED),
        }
        if self._boolean("/search/transfer", written.get("transfer", False), False):
            search["transfer"] = True
        if self._boolean("/search/device_model", written.get("device_model", False), False):
            search["device_model"] = True
        if (replicates := read_replicates(written.get("replicates", 0), self._problems)) != 0:
            search["replicates"] = replicates
        if (pruner := self._choice("pruner", written, PRUNERS, "a pruner")) != "auto":
            search["pruner"] = pruner
        return search

    def _choice(
        self, field: str, written: Mapping[Any, Any], choices: tuple[str, ...], what: str, remark: str = ""
    ) -> str:
        """One of the choices for a field of `search`; the first one if it is absent."""
        value = written.get(field, choices[0])
        if value in choices:
            return cast("str", value)
        remedy = f"one of: {', '.join(choices)}{remark}"
        self._problems.add(below("/search", field), f"{shown(value)} is not {what}", remedy)
        return choices[0]

    def target(self) -> WantedTarget:
        is_given = isinstance(self._document.get("target"), Mapping)
        return read_wanted_target(self._mapping("target", TARGET_FIELDS), is_given=is_given, problems=self._problems)

    def generates(self) -> bool:
        """Whether `inference` is of the mode `generate`, or may be meant to: its reader says what is wrong with it."""
        written = self._document.get("inference", {})
        if not isinstance(written, Mapping):
            return True
        named = cast("Mapping[Any, Any]", written).get("mode", FORWARD)
        return (cast("Mapping[Any, Any]", named).get("value") if isinstance(named, Mapping) else named) != FORWARD

    def allow_sparse(self) -> bool:
        return self._boolean("/allow_sparse", self._document.get("allow_sparse", False), False)

    def require(self, task: str) -> str | None:
        """What every point has to be; None if nothing is asked."""
        written = self._document.get("require")
        if written is None:
            return None
        if written not in REQUIREMENTS:
            remedy = f"one of: {', '.join(REQUIREMENTS)}; or leave it out"
            self._problems.add("/require", f"{shown(written)} is not a requirement", remedy)
            return None
        if task == "probe":
            self._problems.add("/require", "a probe is one layer, and leaves no checkpoint", "leave it out")
            return None
        return str(written)

    def texts(self, field: str, example: str) -> list[tuple[str, str]]:
        """The expressions listed under `field`, each with its pointer; those that are not text are noted."""
        remedy = f"write a list of expressions, for example [{example!r}]"
        texts: list[tuple[str, str]] = []
        for index, text in enumerate(self._list(field, remedy, MAX_EXPRESSIONS)):
            pointer = below(f"/{field}", index)
            if not isinstance(text, str):
                self._problems.add(pointer, f"{shown(text)} is not an expression", "write it as text, in quotes")
            elif any(text.strip() == other for _, other in texts):
                self._problems.add(pointer, f"{shown(text)} is listed twice", "leave one of them out")
            else:
                texts.append((pointer, text.strip()))
        return texts

    def starts(self) -> list[Any]:
        return self._list("start_from", "write a list, for example ['preset:nanogpt-char-cpu']", MAX_STARTS)

    def _known(self, pointer: str, written: Mapping[Any, Any], fields: Iterable[str]) -> None:
        for key in written:
            if key not in fields:
                self._problems.add(
                    below(pointer, key), f"{shown(key)} is not a field here", did_you_mean(str(key), fields)
                )

    def _mapping(self, field: str, fields: tuple[str, ...]) -> Mapping[Any, Any]:
        written = self._document.get(field, {})
        if not isinstance(written, Mapping):
            self._problems.add(
                f"/{field}", f"{shown(written)} is not a mapping", f"give {', '.join(fields)} below it, or leave it out"
            )
            return {}
        self._known(f"/{field}", written, fields)
        return cast("Mapping[Any, Any]", written)

    def _list(self, field: str, remedy: str, most: int | None = None) -> list[Any]:
        written = self._document.get(field, [])
        if not isinstance(written, list):
            self._problems.add(f"/{field}", f"{shown(written)} is not a list", remedy)
            return []
        items = cast("list[Any]", written)
        if most is not None and len(items) > most:
            self._problems.add(f"/{field}", f"{len(items)} entries", f"give at most {most}")
            return items[:most]
        return items

    def _integer(
        self, pointer: str, written: Mapping[Any, Any], field: str, default: int, least: int, most: int
    ) -> int:
        value = written.get(field, default)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not least <= value <= most
            or value != int(value)
        ):
            self._problems.add(
                below(pointer, field), f"{shown(value)} is not in range", f"an integer from {least} to {most:,}"
            )
            return default
        return int(value)

    def _boolean(self, pointer: str, value: Any, default: bool) -> bool:
        if not isinstance(value, bool):
            self._problems.add(pointer, f"{shown(value)} is neither true nor false", "write true or false")
            return default
        return value


def _is_number(value: object, low: float, high: float, *, above: bool) -> bool:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(value, float) and math.isnan(value))
    ):
        return False
    return (low < value if above else low <= value) and value <= high
