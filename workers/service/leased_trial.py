"""A trial that a worker executes: read once, of the service's answer to a claim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layers.configuration import Configuration
from layers.dataset_facts import DatasetFacts
from workers.service.messages import DatasetAnswer, LeaseAnswer, SplitAnswer


@dataclass(frozen=True, slots=True)
class LeasedSplit:
    """A split of a dataset, by its content."""

    sha256: str
    tokens: int | None = None
    """Of a text."""
    bytes: int | None = None
    """Of a text, if they were counted."""

    @classmethod
    def of(cls, answer: SplitAnswer) -> LeasedSplit:
        return cls(answer["sha256"], answer.get("tokens"), answer.get("bytes"))


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedDataset:
    """A registered dataset."""

    id: str
    name: str
    task: str
    sha256: str
    facts: DatasetFacts
    splits: Mapping[str, LeasedSplit]
    """Training and validation; test for the attempts of a confirmation alone."""

    @property
    def bytes_per_token(self) -> float | None:
        """Of a text, on average over its validation split; None if its bytes were not counted."""
        if self.facts.get("tokenizer") == "byte":
            return 1.0
        split = self.splits.get("validation")
        return split.bytes / split.tokens if split and split.bytes and split.tokens else None

    @classmethod
    def of(cls, answer: DatasetAnswer) -> LeasedDataset:
        return cls(
            id=answer["id"],
            name=answer["name"],
            task=answer["task"],
            sha256=answer["sha256"],
            facts=answer["facts"],
            splits={name: LeasedSplit.of(split) for name, split in answer["parts"].items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedTrial:
    """One attempt of a trial, and all that is needed to execute it."""

    trial: str
    attempt: int
    sweep: str
    number: int
    runtime: str
    target_key: str
    configuration: Configuration
    constraints: tuple[str, ...]
    dataset: LeasedDataset | None
    """None: a probe has none."""
    hardware_first: bool
    """Whether it is measured before it is trained. A service that does not say so expects that."""
    measure: bool
    """Whether its latency and memory are not known yet."""
    metrics_in_use: tuple[str, ...]
    """What the sweep decides by; empty if a service does not say so."""
    rungs: tuple[int, ...]
    """Steps of the training at which the service judges whether it is worth going on."""
    training_state: str | None = None
    """The SHA-256 of the state in which a pruner had stopped the training; None: it begins anew."""

    @classmethod
    def of(cls, answer: LeaseAnswer) -> LeasedTrial:
        dataset, state = answer["dataset"], answer.get("training_state")
        return cls(
            trial=answer["trial"],
            attempt=answer["attempt"],
            sweep=answer["sweep"],
            number=answer["number"],
            runtime=answer["runtime"],
            target_key=answer["target_key"],
            configuration=answer["configuration"],
            constraints=tuple(answer["constraints"]),
            dataset=None if dataset is None else LeasedDataset.of(dataset),
            hardware_first=answer.get("hardware_first", True),
            measure=answer.get("measure", True),
            metrics_in_use=tuple(answer.get("metrics_in_use", ())),
            rungs=tuple(answer.get("rungs", ())),
            training_state=None if state is None else state["sha256"],
        )
