"""How many workers of each kind the queue needs, and which of them to start and to drain. Nothing here asks anybody."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from layers.labels import missing_labels
from workers.engine.__main__ import DEVICE_KINDS
from workers.service.messages import QueueEntry, RegisteredWorker
from workers.slots import MOST_ON_A_GPU

Kind = Literal["gpu", "cpu"]
"""What a worker works on."""
KINDS: tuple[Kind, ...] = ("gpu", "cpu")

PATIENCE_SECONDS = 30.0
"""How long what the workers do not serve may stay so: a sweep finds its target only after a worker has registered."""
RETRY_SECONDS = 600.0
"""After which workers are started once more for what others did not serve: the machines may have changed."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What its workers have in common, and how many there may be."""

    name: str
    limits: Mapping[Kind, int]
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    """Those of each of its workers."""
    slots: int | None = None
    """Of each worker; None: each chooses."""

    def worker_name(self, member: str) -> str:
        """The name with which a member registers with the service."""
        return f"{self.name}-{member}"

    def has(self, worker: RegisteredWorker) -> bool:
        member = worker["name"].removeprefix(f"{self.name}-")
        return member != worker["name"] and _parsed(member)[0] is not None


class Needs(NamedTuple):
    """What tells one entry of the queue from the others."""

    project: str
    target: str | None
    runtime: str | None
    results_version: int
    labels: tuple[tuple[str, str], ...]


class Changes(NamedTuple):
    """What is to be done to the members of a fleet, by their names."""

    start: list[str]
    drain: list[str]
    """More than may be."""
    absent: list[str]
    """More than are wanted, of those that have not registered."""


class Unserved:
    """What the fleet's workers turned out not to serve: starting more of them would not help.

    Another device model, another version of the results, a runtime that the machines lack. Without this memory workers
    would be started for it, leave because nothing is given to them, and be started again.
    """

    def __init__(self) -> None:
        self._since: dict[Needs, float] = {}
        """When a worker of the fleet was first seen that could have served it by its kind, and did not."""

    def observe(
        self, entries: Iterable[QueueEntry], registered: Iterable[RegisteredWorker], fleet: Fleet, now: float
    ) -> frozenset[Needs]:
        """Compare the queue with the living workers; what counts as unserved at the time `now`, in seconds."""
        kinds = {worker["device"]["kind"] for worker in registered if fleet.has(worker)}
        present = {needs_of(entry): kind_for(entry, fleet) for entry in entries if not entry["workers"]}
        self._since = {
            needs: since for needs, since in self._since.items() if needs in present and now - since < RETRY_SECONDS
        }
        for needs, kind in present.items():
            if kind in kinds:
                self._since.setdefault(needs, now)
        return frozenset(needs for needs, since in self._since.items() if now - since > PATIENCE_SECONDS)


def needs_of(entry: QueueEntry) -> Needs:
    return Needs(
        entry["project"],
        entry["target"],
        entry["runtime"],
        entry["results_version"],
        tuple(sorted(entry["labels"].items())),
    )


def kind_for(entry: QueueEntry, fleet: Fleet) -> Kind | None:
    """Which of the fleet's workers may serve it: by runtime and labels; None: none. Any runtime means a GPU's first."""
    if missing_labels(entry["labels"], fleet.labels):
        return None
    return next((kind for kind in KINDS if fleet.limits[kind] and _runs(kind, entry["runtime"])), None)


def wanted_workers(
    entries: Iterable[QueueEntry],
    registered: Sequence[RegisteredWorker],
    fleet: Fleet,
    unserved: Collection[Needs] = (),
) -> dict[Kind, int]:
    """How many workers of each kind the queue needs, within the limits.

    `registered`: the living workers that the service knows. Slots of workers that are not the fleet's count first.
    """
    slots: dict[Kind, int] = dict.fromkeys(KINDS, 0)
    for entry in entries:
        kind = kind_for(entry, fleet)
        if kind is not None and needs_of(entry) not in unserved:
            slots[kind] += max(0, entry["wanted_slots"] - _slots_of_others(entry, registered, fleet))
    return {
        kind: min(fleet.limits[kind], -(-count // _slots_each(kind, registered, fleet)))
        for kind, count in slots.items()
    }


def changes(
    wanted: Mapping[Kind, int], members: Collection[str], registered: Iterable[RegisteredWorker], fleet: Fleet
) -> Changes:
    """What to start so that there are as many as are wanted, and which of them are too many.

    Members are numbered from 0 by kind, so that two controllers that start the same one start it once. A worker that is
    not wanted any more is not drained: it leaves by itself after a while without a trial, and takes what comes until
    then. One that has not registered, because there is no machine for it or it fails, would stay.
    """
    working = {worker["name"] for worker in registered}
    start: list[str] = []
    drain: list[str] = []
    absent: list[str] = []
    for kind in KINDS:
        numbers = sorted(number for each, number in map(_parsed, members) if each == kind)
        free = (number for number in range(fleet.limits[kind]) if number not in numbers)
        start += [f"{kind}-{number}" for number, _ in zip(free, range(wanted[kind] - len(numbers)), strict=False)]
        excess = [number for number in numbers if number >= fleet.limits[kind]]
        drain += [f"{kind}-{number}" for number in excess]
        others = [f"{kind}-{number}" for number in reversed(numbers) if number not in excess]
        silent = [member for member in others if fleet.worker_name(member) not in working]
        absent += silent[: max(0, len(others) - wanted[kind])]
    return Changes(start, drain, absent)


def kind_of(member: str) -> Kind:
    """What a member works on. Raises ValueError if the name is not a member's."""
    kind, _ = _parsed(member)
    if kind is None:
        raise ValueError(f"{member!r} is not the name of a worker of a fleet")
    return kind


def _runs(kind: Kind, runtime: str | None) -> bool:
    return runtime is None or DEVICE_KINDS.get(runtime) == kind


def _parsed(member: str) -> tuple[Kind | None, int]:
    for kind in KINDS:
        number = member.removeprefix(f"{kind}-")
        if number != member and number.isdigit():
            return kind, int(number)
    return None, -1


def _slots_each(kind: Kind, registered: Iterable[RegisteredWorker], fleet: Fleet) -> int:
    """Of one worker: what those have that are there, else what was asked for, else the most that one chooses."""
    seen = [each["slots"] for each in registered if fleet.has(each) and each["device"]["kind"] == kind]
    return max(seen, default=fleet.slots or (MOST_ON_A_GPU if kind == "gpu" else 1))


def _slots_of_others(entry: QueueEntry, registered: Iterable[RegisteredWorker], fleet: Fleet) -> int:
    """Slots of workers that may take an entry's trials and are not the fleet's."""
    if not entry["workers"]:
        return 0
    own = [each for each in registered if fleet.has(each) and _has_target(each, entry["target"])]
    return max(0, entry["slots"] - sum(each["slots"] for each in own))


def _has_target(worker: RegisteredWorker, target: str | None) -> bool:
    return any(each["key"] == target for each in worker["targets"])
