"""The points to try first: presets, trials, checkpoints and points that are spelt out. Each must lie in the space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from layers.configuration import Sections, flatten
from layers.dataset_facts import fixed_lengths
from layers.declarations.per_layer import base_path
from layers.declarations.training import CHECKPOINT, NO_CHECKPOINT
from layers.expressions.names import VARIABLES, Names
from layers.parameter import ParameterError, Scalar
from layers.presets import PRESETS
from layers.problems import Problems, below, did_you_mean, shown
from layers.space.document_fields import FindStart
from layers.space.evaluation import PointError, evaluate_entry, is_active
from layers.space.search_parameters import Entry
from layers.space.space import Space, section_of

INITIALIZE_FROM = "training.initialize_from"


@dataclass(frozen=True, slots=True)
class Start:
    """A point to try first. `name` says where it is from; `chosen` are its values for the open parameters."""

    name: str
    chosen: dict[str, Scalar]


class StartReader:
    """Reads `start_from`, and notes every start that is no point of the space, with the parameter that is not."""

    def __init__(self, space: Space, names: Names, find_start: FindStart, problems: Problems) -> None:
        self._space = space
        self._names = names
        self._find_start = find_start
        self._problems = problems

    def read(self, written: list[Any]) -> tuple[Start, ...]:
        starts: list[Start] = []
        for index, item in enumerate(written):
            start = self._read_one(index, item)
            if start is None:
                continue
            twin = next((other.name for other in starts if other.chosen == start.chosen), None)
            if twin is not None:
                self._problems.add(
                    below("/start_from", index), f"{start.name} is the same point as {twin}", "leave it out"
                )
            starts.append(start)
        return tuple(starts)

    def _read_one(self, index: int, item: Any) -> Start | None:
        pointer = below("/start_from", index)
        if isinstance(item, Mapping):
            given = self._inline(pointer, cast("Mapping[Any, Any]", item))
            return None if given is None else self._point(f"start_from/{index}", pointer, given, {})
        kind, _, name = item.partition(":") if isinstance(item, str) else ("", "", "")
        if kind == "preset":
            preset = PRESETS.get(name)
            if preset is None:
                self._problems.add(pointer, f"there is no preset {shown(name)}", did_you_mean(name, PRESETS))
                return None
            offered = {**self._weights(), **_filled(self._space, preset.values)}
            return self._point(f"preset:{name}", pointer, {}, offered)
        if kind == "checkpoint":
            described = self._find_start(cast("str", item))
            if described is None:
                remedy = "upload it first: layersweep checkpoint add FOLDER"
                self._problems.add(pointer, f"there is no checkpoint {shown(name)}", remedy)
                return None
            given = cast("Mapping[str, Scalar]", described)
            offered = {**self._weights(name), **_filled(self._space, given)}
            return self._point(f"checkpoint:{name}", pointer, {}, offered)
        if kind == "trial":
            values = self._find_start(cast("str", item))
            if values is None:
                remedy = (
                    "write trial:SWEEP/NUMBER with the sweep's name or id, or trial:ID, as the trial's page shows it"
                )
                self._problems.add(pointer, f"there is no trial {shown(name)}", remedy)
                return None
            if isinstance(values.get("model"), Mapping):
                values = {**flatten(cast("Sections", values)), **cast("dict[str, Scalar]", values.get(VARIABLES, {}))}
            return self._point(f"trial:{name}", pointer, {}, {**self._weights(), **values})
        remedy = (
            "write preset:NAME, trial:SWEEP/NUMBER, checkpoint:NAME, or the values of the open parameters as a mapping"
        )
        self._problems.add(pointer, f"{shown(item)} is not a start", remedy)
        return None

    def _weights(self, checkpoint: str | None = None) -> dict[str, Scalar]:
        """What a training begins with at a start that does not say it: random weights, or those of the `checkpoint`
        that the start is, where the document lets trials begin with them."""
        opening = next((entry.opening for entry in self._space.entries if entry.name == INITIALIZE_FROM), None)
        for value in () if opening is None else opening.values:
            found = CHECKPOINT.fullmatch(str(value))
            if found is not None and found["name"] == checkpoint:
                return {INITIALIZE_FROM: value}
        return {INITIALIZE_FROM: NO_CHECKPOINT}

    def _inline(self, pointer: str, item: Mapping[Any, Any], prefix: str = "") -> dict[str, tuple[str, Any]] | None:
        """Name -> (pointer, value) of a point that is spelt out, nested or dotted; None if a name is wrong."""
        given: dict[str, tuple[str, Any]] = {}
        wrong = False
        for key, value in item.items():
            name, place_of = f"{prefix}{key}", below(pointer, key)
            if self._names.declaration(name) is not None:
                if name in given:
                    self._problems.add(place_of, f"{name} is given twice", "leave one of them out")
                given[name] = (place_of, value)
            elif isinstance(value, Mapping) and self._names.has_below(name):
                nested = self._inline(place_of, cast("Mapping[Any, Any]", value), f"{name}.")
                wrong = wrong or nested is None
                for twin in given.keys() & (nested or {}).keys():
                    self._problems.add(place_of, f"{twin} is given twice", "leave one of them out")
                given.update(nested or {})
            else:
                known = [parameter.name for parameter in self._space.open]
                self._problems.add(place_of, f"{name} is not a parameter", did_you_mean(name, known) or "leave it out")
                wrong = True
        return None if wrong else given

    def _point(
        self, name: str, pointer: str, spelt: Mapping[str, tuple[str, Any]], offered: Mapping[str, object]
    ) -> Start | None:
        """The start of a point that is `spelt` out in the document or `offered` by what the document names."""
        before = len(self._problems)
        environment = self._space.environment()
        for entry in self._space.entries:
            # What is said of all layers is said of each.
            shared = base_path(entry.name)
            where, value = spelt.get(entry.name) or spelt.get(
                shared, (pointer, offered.get(entry.name, offered.get(shared)))
            )
            try:
                active = is_active(entry, environment)
            except PointError as error:
                self._problems.add(pointer, f"{error.name}: {error.message}", error.remedy or "give other values")
                return None
            if active and entry.opening is not None:
                self._choose(entry, name, where, value, environment)
            elif active:
                self._calculate(entry, name, pointer, spelt, environment)
            elif entry.name in spelt:
                condition = entry.when.text if entry.when else ""
                self._problems.add(where, f"{entry.name} is absent here: {condition} is false", "leave it out")
        for spelt_name, (where, _) in spelt.items():
            if all(spelt_name not in (entry.name, base_path(entry.name)) for entry in self._space.entries):
                self._problems.add(where, f"{spelt_name} is not open in this sweep", "leave it out, or open it")
        if len(self._problems) > before:
            return None
        values = self._space.values_of(environment)
        rejection = self._space.judge(values)
        if rejection is not None:
            self._problems.add(
                pointer,
                f"{name} does not lie in the space: {rejection.message}",
                "choose another start, or change what forbids it",
            )
            return None
        return Start(name, self._space.chosen_of(values))

    def _choose(self, entry: Entry, name: str, where: str, value: Any, environment: dict[str, Scalar]) -> None:
        opening = entry.opening
        assert opening is not None
        if value is None:
            whole = name.startswith("start_from/")
            place = "add it to this start" if whole else "write the start as a mapping, with this parameter"
            remedy = f"{place}: it can be {opening.allowed()}"
            self._problems.add(where, f"{name} says nothing of {entry.name}", remedy)
            return
        try:
            environment[entry.name] = opening.canonical(value)
        except ValueError as error:
            remedy = f"{entry.name} is {opening.allowed()} in this sweep: widen it, or leave the start out"
            self._problems.add(where, f"{name} does not lie in the space: {entry.name}: {error}", remedy)

    def _calculate(
        self,
        entry: Entry,
        name: str,
        pointer: str,
        spelt: Mapping[str, tuple[str, Any]],
        environment: dict[str, Scalar],
    ) -> None:
        """Put a fixed or derived value into `environment`; one that is spelt out has to be the same."""
        error = None if _lacks(entry, environment) else evaluate_entry(entry, environment)
        if error is not None:
            remedy = error.remedy or "give other values"
            self._problems.add(pointer, f"{name}: {error.name}: {error.message}", remedy)
        elif entry.name in spelt:
            where, value = spelt[entry.name]
            if value != environment.get(entry.name, value):
                detail = f"{entry.name} is {shown(environment[entry.name])} here, not {shown(value)}"
                self._problems.add(where, detail, "leave it out: only open parameters are chosen")


def _lacks(entry: Entry, environment: Mapping[str, Scalar]) -> bool:
    """A derived value needs a parameter of which the start said something wrong, or nothing: noted there already."""
    return entry.derived is not None and any(name not in environment for name in entry.derived.names)


def _filled(space: Space, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The values of a preset or a checkpoint with the defaults that they imply; lengths that the data fixes are its.

    What cannot be in this sweep's models (the kind of another task, say) implies nothing; if such a parameter is
    open, its value still counts, and is refused for not lying in the space.
    """
    fixed = fixed_lengths(space.task, space.facts)
    ours = {name: value for name, value in values.items() if section_of(name)[1] not in fixed}
    inference = space.complete_inference(ours)
    training = space.complete_training(ours, inference)
    while True:
        try:
            model = space.complete_model(ours, inference, training)
        except ParameterError as error:
            if error.path not in ours:
                return dict(values)
            del ours[error.path]
            continue
        return {**flatten({"model": model, "training": training, "inference": inference}), **values}
