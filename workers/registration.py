"""A worker at the service: what it offers, registered until it signs off."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from layers.capabilities import Capabilities
from layers.results_version import RESULTS_VERSION
from workers.devices import device
from workers.devices.device import Device
from workers.devices.time_shares import DeviceUse
from workers.interruption import Interruption
from workers.service.client import (
    BACKOFF,
    RefusedError,
    ServiceClient,
    ServiceError,
    TokenRefusedError,
    UnreachableError,
)
from workers.service.messages import RegistrationAnswer, RegistrationRequest
from workers.settings import WorkerIdentity

logger = logging.getLogger("layersweep.worker")

Answer = TypeVar("Answer")

TOKEN_SECONDS = 600.0
"""How long a worker whose token was revoked waits for a new one in the token file."""
TOKEN_REMEDY = ": give the service's token (LAYERSWEEP_TOKEN, LAYERSWEEP_TOKEN_FILE)"


class WorkerError(Exception):
    """The worker cannot work at all; the message says what to change."""

    status = 1
    """The exit status of the process."""


class DeviceTakenError(WorkerError):
    """Another worker has the GPU."""

    status = 3


class Registration:
    """A worker's registration with the service. Registers again when the service has forgotten it."""

    def __init__(
        self,
        service: ServiceClient,
        identity: WorkerIdentity,
        worked_on: Device,
        *,
        slots: int,
        draining: Interruption,
        waits_for_device: bool,
    ) -> None:
        """`draining` interrupts every wait; `waits_for_device`: as long as another worker has the device."""
        self._service = service
        self._name = identity.name or device.default_name()
        self._labels = identity.labels
        self._device = worked_on
        self._slots = slots
        self._draining = draining
        self._waits_each_time = waits_for_device
        self._has_waited = False
        self._answer: RegistrationAnswer | None = None

    @property
    def answer(self) -> RegistrationAnswer:
        """What the service said."""
        assert self._answer is not None, "a worker registers before it claims"
        return self._answer

    @property
    def worker_id(self) -> str:
        return self.answer["id"]

    def register(self, capabilities: Mapping[str, Capabilities]) -> None:
        """Register with the `capabilities` of each runtime. Raises WorkerError if refused, and DrainedError."""
        body = self._request(capabilities)
        key = uuid.uuid4().hex
        while True:
            try:
                registered = self.retry_until_drained(lambda key=key: self._service.register(body, key))
                break
            except RefusedError as refusal:
                if refusal.kind == "in-flight":
                    self._draining.wait(refusal.retry_after_seconds or 1.0)
                    continue
                if refusal.kind == "device-in-use" and self._waits_for_device(refusal.retry_after_seconds):
                    key = uuid.uuid4().hex
                    continue
                remedy = TOKEN_REMEDY if refusal.status == 403 else ""
                failure = DeviceTakenError if refusal.kind == "device-in-use" else WorkerError
                raise failure(f"{self._service.server} refused the registration: {refusal}{remedy}") from None
            except TokenRefusedError as refusal:
                raise WorkerError(f"{self._service.server} refused the registration: {refusal}{TOKEN_REMEDY}") from None
        self._answer = registered
        logger.info(
            "registered with %s as %s for %s%s",
            self._service.server,
            self._name,
            ", ".join(registered["target_keys"]),
            f", {self._slots} slots" if self._slots > 1 else "",
        )

    def deregister(self) -> None:
        """Give the device up, so that the next worker need not wait. If the service is away, its timeout does the
        same."""
        if self._answer is not None:
            with contextlib.suppress(ServiceError):
                self._service.deregister(self._answer["id"])

    def report_device_use(self, use: DeviceUse) -> None:
        """Report how busy the device was. Failures are ignored: an older service does not know this call."""
        with contextlib.suppress(ServiceError):
            self._service.report_device_use(self.worker_id, use)

    def retry_until_drained(self, call: Callable[[], Answer]) -> Answer:
        """Retry a call until the service answers. Raises DrainedError, and TokenRefusedError: at once if the token was
        never accepted, after `TOKEN_SECONDS` if it was."""
        refused_since: float | None = None
        for delay in replace(BACKOFF, most_seconds=15.0):
            self._draining.check()
            try:
                return call()
            except UnreachableError as error:
                if isinstance(error, TokenRefusedError):
                    now = time.monotonic()
                    refused_since = refused_since or now
                    if self._answer is None or now - refused_since + delay > TOKEN_SECONDS:
                        raise
                server = self._service.server
                logger.warning("the service at %s %s (%s); trying again in %.1f s", server, error.what, error, delay)
            self._draining.wait(delay)
        raise AssertionError("waits never end")

    def _request(self, capabilities: Mapping[str, Capabilities]) -> RegistrationRequest:
        body: RegistrationRequest = {
            "name": self._name,
            "device": self._device,
            "targets": list(capabilities.values()),
            "versions": {
                "results": str(RESULTS_VERSION),
                **device.versions(),
                **{runtime: each["version"] for runtime, each in capabilities.items()},
            },
        }
        if self._slots > 1:
            body["slots"] = self._slots
        if self._labels:
            body["labels"] = dict(self._labels)
        return body

    def _waits_for_device(self, seconds: float | None) -> bool:
        """Wait until the service would have forgotten a killed worker. Raises DrainedError.

        Returns whether to register again: only once, unless the worker waits for as long as another has the device.
        """
        if seconds is None or (self._has_waited and not self._waits_each_time):
            return False
        self._has_waited = True
        logger.warning(
            "a worker has %s already: trying again in %.0f s, when it is forgotten if it was killed",
            self._device["uuid"],
            seconds,
        )
        self._draining.wait(seconds)
        self._draining.check()
        return True
