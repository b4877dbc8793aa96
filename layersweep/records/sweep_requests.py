"""What is asked of sweeps: which a list holds, and what is to be said of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from layersweep.records.sweeps import SweepOrder, SweepState


class SweepFilters(TypedDict, total=False):
    """Which sweeps a list holds, and in which order; None leaves a filter out."""

    state: SweepState | Sequence[SweepState] | None
    """In this state, or in one of these."""
    task: str | None
    name: str | None
    """Part of the name."""
    tag: str | None
    archived: Literal["hide", "show", "only"]
    """Without it, archived ones are left out."""
    sort: SweepOrder | None
    """A minus in front turns the order."""


class SweepAnnotations(TypedDict, total=False):
    """What people say of a sweep."""

    name: str
    note: str
    tags: Sequence[str]
    """All that it has."""
    archived: bool
    """Whether lists leave it out."""
