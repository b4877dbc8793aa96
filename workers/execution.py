"""Executing one lease: hold it, run the trial, and tell the service how it ended."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from layers.capabilities import Capabilities
from layers.configuration import TrialConfiguration
from layers.metrics import split_name
from layersweep import logs
from workers.activity import SlotActivity
from workers.data.cache import DatasetCache
from workers.devices.memory import DeviceMemory, MemoryShare
from workers.devices.memory_estimate import estimated_bytes
from workers.devices.time_shares import DeviceShare, DeviceTime
from workers.engine_cache import EngineCache
from workers.interruption import (
    DrainedError,
    Interruption,
    InterruptionError,
    LeaseLostError,
    TrialCancelledError,
)
from workers.processes.child import ChildDiedError, ChildError
from workers.processes.children import Children
from workers.processes.folders import attempt_folder
from workers.service.client import RefusedError, ServiceClient, UnreachableError, retry_while_unreachable
from workers.service.lease import Lease
from workers.service.leased_trial import LeasedTrial
from workers.service.messages import FinishRequest, LeaseAnswer
from workers.trial.artifacts import ArtifactStore
from workers.trial.context import Limits, TrialContext
from workers.trial.files import AttemptFiles
from workers.trial.outcomes import REASON_CHARACTERS, Finish
from workers.trial.run import run_trial
from workers.waits import Cause, Waits

logger = logging.getLogger("layersweep.worker")

FINISH_SECONDS = 600.0
"""How long a result is offered to a service that does not answer, or refuses the token."""

DRAINING_SECONDS = 10.0
"""The same, for a worker that was asked to stop."""

OUTSIDE_SECONDS = 0.5
"""After a child was killed from outside: how long to wait for the same signal to reach the worker itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContext:
    """What all attempts of a worker work with."""

    service: ServiceClient
    datasets: DatasetCache
    engines: EngineCache
    capabilities: Mapping[str, Capabilities]
    """By runtime."""
    heartbeat_seconds: float
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotContext:
    """What the attempts of a slot work with: its children, and the device that it may share with other slots."""

    children: Children
    device_uuid: str
    device_time: DeviceTime = field(default_factory=DeviceTime)
    device_memory: DeviceMemory = field(default_factory=DeviceMemory)
    every_memory: Sequence[DeviceMemory] = ()
    """Of each device of the worker, in the order of their UUIDs; empty: it has one."""


class Execution:
    """One attempt: what the lease names, executed with a slot's children."""

    def __init__(
        self,
        leased: LeasedTrial,
        worker: WorkerContext,
        slot: SlotContext,
        interruption: Interruption,
        *,
        label: str = "",
        wants_next: Callable[[], bool] = lambda: False,
    ) -> None:
        """`interruption` stops the attempt when it is set; `label`: what the log calls the slot; `wants_next`: whether
        the service is asked for the next lease when this attempt is finished."""
        self._leased = leased
        self._worker = worker
        self._slot = slot
        self._interruption = interruption
        self._wants_next = wants_next
        self._next: LeaseAnswer | None = None
        self._waits: Waits | None = None
        """None before the attempt has begun."""
        self._trial: tuple[str, int] = (leased.trial, leased.attempt)
        self._label = f"{label}trial {leased.number} ({leased.trial}, attempt {leased.attempt})"
        self._lease = Lease(
            worker.service, *self._trial, heartbeat_seconds=worker.heartbeat_seconds, interruption=interruption
        )

    @property
    def activity(self) -> SlotActivity:
        """What the attempt does now. For other threads."""
        return SlotActivity(self._lease.entered_phase, self._waits.cause if self._waits else None)

    def waited_seconds(self) -> dict[Cause, float]:
        """For how long it has waited until now, by cause. For other threads."""
        return self._waits.seconds_until_now() if self._waits else {}

    def run(self) -> LeasedTrial | None:
        """Execute the attempt and tell the service how it ended; the next lease, if it was given one then.

        What goes wrong is logged and told, never raised.
        """
        sweep, (trial, attempt) = self._leased.sweep, self._trial
        with logs.about(sweep=sweep, trial=trial, attempt=attempt):
            self._run()
        if self._next is None:
            self._leave_device()
        return None if self._next is None else LeasedTrial.of(self._next)

    def _run(self) -> None:
        logger.info("%s: claimed", self._label)
        with self._lease:
            try:
                self._conclude(self._attempt())
            except LeaseLostError as cause:
                logger.warning("%s: the lease is lost, the result is thrown away: %s", self._label, cause)
            except TrialCancelledError:
                logger.info("%s: cancelled", self._label)
                self._release("cancelled", charge=False)
            except DrainedError as cause:
                logger.info("%s: given back: %s", self._label, cause)
                self._slot.children.kill()
                self._release(str(cause), charge=False)
            except ChildDiedError as death:
                # A signal to everything, as at a container's end, may reach a child before it reaches the worker.
                self._interruption.wait(OUTSIDE_SECONDS)
                reason = f"{death}, from outside"
                logger.warning("%s: given back: %s", self._label, reason)
                self._release(reason, charge=not isinstance(self._interruption.cause, DrainedError))
            except (UnreachableError, OSError) as error:
                logger.warning("%s: given back: %s", self._label, error)
                self._release(f"the worker could not execute it: {error}", charge=True)

    def _attempt(self) -> Finish:
        """The attempt's result; an error of the worker itself fails the trial, with the traceback in its log."""
        share = self._slot.device_time.share()
        with attempt_folder() as folder:
            try:
                return run_trial(self._context(folder, share))
            except (InterruptionError, ChildError, UnreachableError, OSError):
                raise
            except Exception as error:
                logger.exception("%s: an error of the worker", self._label)
                reason = f"an error of the worker: {type(error).__name__}: {error}"
                return Finish("failed", reason, {}, {}, log=traceback.format_exc())
            finally:
                share.pause()

    def _leave_device(self) -> None:
        """Make room on the device, which the next attempt of the slot would do anyway; without waiting for a turn if
        the attempt was interrupted."""
        if self._interruption.cause is not None:
            self._slot.children.kill_engine()
            return
        self._slot.children.close_engine()
        self._slot.children.release_model()

    def _context(self, folder: Path, share: DeviceShare) -> TrialContext:
        leased = self._leased
        configuration = TrialConfiguration.of(leased.configuration)
        self._waits = Waits(self._label, share, lambda progress: self._lease.progress(**progress))
        return TrialContext(
            trial=leased.trial,
            runtime=leased.runtime,
            target_key=leased.target_key,
            configuration=configuration,
            constraints=leased.constraints,
            hardware_first=leased.hardware_first,
            measures=leased.measure,
            metrics_in_use=leased.metrics_in_use,
            rungs=leased.rungs,
            training_state=leased.training_state,
            dataset=leased.dataset,
            lease=self._lease,
            capabilities=self._worker.capabilities[leased.runtime],
            files=AttemptFiles(folder),
            children=self._slot.children,
            datasets=self._worker.datasets,
            engines=self._worker.engines,
            device_uuid=self._slot.device_uuid,
            share=share,
            waits=self._waits,
            memory=self._memory_share(configuration),
            limits=self._worker.limits,
            artifacts=ArtifactStore(self._worker.service, *self._trial, self._interruption),
        )

    def _memory_share(self, configuration: TrialConfiguration) -> MemoryShare:
        """A model that devices share has all of the worker's for itself."""
        estimated = estimated_bytes(configuration)
        if int(configuration.model.get("tp_size") or 1) > 1:
            memories = self._slot.every_memory or (self._slot.device_memory,)
            return MemoryShare.alone_on(memories, estimated, self._interruption)
        return self._slot.device_memory.share(estimated, self._interruption)

    def _conclude(self, finish: Finish) -> None:
        """Offer the result until the service takes it, or says that it does not want it. Raises LeaseLostError."""
        self._lease.phase("finish")
        self._lease.flush(5.0)
        body = finish.body()
        if self._wants_next():
            body["claim"] = True
        try:
            self._next = self._offer(body)
        except UnreachableError as error:
            logger.error("%s: the result is lost, the service %s: %s", self._label, error.what, error)
            return
        except RefusedError as refusal:
            if refusal.lease_is_lost:
                raise LeaseLostError(refusal.detail) from None
            logger.error("%s: the service refused the result: %s", self._label, refusal)
            reason = f"the service refused the result of the worker: {refusal}"[:REASON_CHARACTERS]
            with contextlib.suppress(RefusedError, UnreachableError):
                self._offer({"outcome": "failed", "reason": reason})
            return
        how = f": {finish.reason}" if finish.reason else _scores(finish)
        logger.info("%s: %s%s", self._label, finish.outcome, how)

    def _offer(self, body: FinishRequest) -> LeaseAnswer | None:
        def send() -> LeaseAnswer | None:
            return self._worker.service.finish(*self._trial, body)

        try:
            return retry_while_unreachable(send, seconds=FINISH_SECONDS, wait=self._interruption.wait)
        except UnreachableError:
            if not isinstance(self._interruption.cause, DrainedError):
                raise
            return retry_while_unreachable(send, seconds=DRAINING_SECONDS)

    def _release(self, reason: str, *, charge: bool) -> None:
        self._lease.flush(1.0)
        try:
            retry_while_unreachable(
                lambda: self._worker.service.release(*self._trial, reason, charge=charge), seconds=DRAINING_SECONDS
            )
        except UnreachableError as error:
            logger.warning("the service %s (%s): the lease will lapse", error.what, error)
        except RefusedError as refusal:
            if not refusal.lease_is_lost:
                logger.warning("the service refused to take the trial back: %s", refusal)


def _scores(finish: Finish) -> str:
    shown = ("validation_loss", "latency_ms_p50", "memory_bytes")
    scores = [(name, value) for name, value in finish.metrics.items() if split_name(name)[0] in shown]
    scores.sort(key=lambda score: shown.index(split_name(score[0])[0]))
    return "".join(f", {name} {value:.6g}" for name, value in scores)
