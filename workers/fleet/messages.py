"""What the controller of a fleet and its child that speaks to Ray say to each other."""

from __future__ import annotations

from typing import Final, TypedDict

from workers.engine.protocol import Verb


class WorkerOrder(TypedDict):
    """A worker to start."""

    arguments: list[str]
    """Of `layersweep worker`."""
    environment: dict[str, str]
    """Added to that of the machine where it is started."""
    shares_machine: bool
    """Whether it has as many threads, and slots if they are not told, as its part of the processors allows."""


class Member(TypedDict):
    """A worker of the fleet, as the cluster has it."""

    name: str
    state: str
    is_leaving: bool
    """Whether its machine is being drained, because it is preempted or not needed."""


class MembersAnswer(TypedDict):
    members: list[Member]


class NoAnswer(TypedDict):
    """Done."""


MEMBERS: Final = Verb[MembersAnswer]("members")
START: Final = Verb[NoAnswer]("start")
DRAIN: Final = Verb[NoAnswer]("drain")
REQUEST_MACHINES: Final = Verb[NoAnswer]("request_machines")
