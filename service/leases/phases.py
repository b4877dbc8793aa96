"""The phases of an attempt, and the two orders in which they come.

If the hardware is measured first, a model that breaks a hardware constraint is never trained, and each trial is
built and measured twice. Otherwise it is trained first, and built and measured once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import get_args

from layers.expressions.constraints import parse_constraint
from layers.metrics import metric
from service.leases import schemas as lease_schemas

Phase = lease_schemas.Phase

PHASES: tuple[Phase, ...] = get_args(Phase)
"""All of them. An attempt, and each further try within it, begins with the first one."""

HARDWARE_FIRST: tuple[Phase, ...] = PHASES
TRAINING_FIRST: tuple[Phase, ...] = ("check", "train", "quantize", "build", "measure", "evaluate", "finish")
PROBE: tuple[Phase, ...] = ("check", "build", "measure", "finish")
"""A probe has nothing to train."""

_ORDERS = (HARDWARE_FIRST, TRAINING_FIRST)


@functools.lru_cache(maxsize=4096)
def is_hardware_first(
    task: str, wish: str | None, constraints: tuple[str, ...], pruner: str | None, objectives: tuple[str, ...]
) -> bool:
    """Whether the trials of a sweep are measured before they are trained: those of a probe always are.

    `wish`: its `search.hardware_first`; None, of a sweep that is older than that field, is `auto`: only if a
    constraint can end a trial by what is measured, or if the document names a `pruner`, which has to know the
    `objectives` (their metrics) that are measured.
    """
    if task == "probe" or wish in ("always", "never"):
        return task == "probe" or wish == "always"
    is_judged = pruner not in (None, "none") and any(metric(name).stage == "hardware" for name in objectives)
    return is_judged or any(parse_constraint(text).stage == "hardware" for text in constraints)


def follows(entered: Sequence[str], phase: str) -> bool:
    """Whether `phase` can come after the phases that an attempt has entered: in one of the orders, some left out."""
    tried = [*_last_try(entered), phase]
    return any(_is_in_order(tried, order) for order in _ORDERS)


def order_of(entered: Sequence[str], *, hardware_first: bool) -> tuple[Phase, ...]:
    """The order of an attempt that has entered these phases: what its lease asks for, unless its worker does not.

    A worker that is older than the second order measures first, whatever it is asked for.
    """
    orders = _ORDERS if hardware_first else _ORDERS[::-1]
    return next((order for order in orders if _is_in_order(_last_try(entered), order)), HARDWARE_FIRST)


def has_trained(entered: Sequence[str]) -> bool:
    """Whether the attempt's last try has begun to train: its hardware constraints are judged when it ends."""
    return "train" in _last_try(entered)


def _last_try(entered: Sequence[str]) -> Sequence[str]:
    starts = [index for index, phase in enumerate(entered) if phase == PHASES[0]]
    return entered[starts[-1] :] if starts else entered


def _is_in_order(entered: Sequence[str], order: Sequence[str]) -> bool:
    if not set(entered) <= set(order):
        return False
    places = [order.index(phase) for phase in entered]
    return places == sorted(places)
