"""How much one caller may ask for: requests in a second, requests at a time, wrong tokens, and time for a body."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.types import Message, Receive

from service.errors import TooManyRequestsError, TooSlowError
from service.settings import Settings

BURST_SECONDS = 4.0
"""A caller that was quiet may ask for this many seconds' worth of requests at once."""

LOOKS_PER_SECOND = 5.0
LOOKS_AT_ONCE = 20.0
"""Tokens that are looked at from an address from which too many wrong ones came: each costs a read of the database."""

MIN_BODY_BYTES_PER_SECOND = 1024
_KEPT = 10_000


@dataclass
class _Bucket:
    """Fills with time, up to its size; each request takes one."""

    remaining: float
    at: float

    def take(self, rate: float, size: float, now: float) -> float:
        """Take one; return 0, or how many seconds are missing to the next."""
        self.remaining = min(size, self.remaining + (now - self.at) * rate)
        self.at = now
        if self.remaining < 1:
            return (1 - self.remaining) / rate
        self.remaining -= 1
        return 0.0


@dataclass
class Limits:
    """The limits of one process. Everything happens on its event loop: there is no lock."""

    settings: Settings
    clock: Callable[[], float] = time.monotonic
    _requests: dict[str, _Bucket] = field(default_factory=dict[str, _Bucket], init=False)
    _wrong_tokens: dict[str, _Bucket] = field(default_factory=dict[str, _Bucket], init=False)
    _looks: dict[str, _Bucket] = field(default_factory=dict[str, _Bucket], init=False)
    _running: dict[str, int] = field(default_factory=dict[str, int], init=False)

    @contextmanager
    def request(self, who: str) -> Generator[None]:
        """Count a request of a caller while it runs. Raises TooManyRequestsError."""
        rate = self.settings.requests_per_second
        missing = _take(self._requests, who, rate, rate * BURST_SECONDS, self.clock())
        if missing:
            raise TooManyRequestsError(
                f"more than {rate:g} requests a second from one caller", retry_after_seconds=math.ceil(missing)
            )
        running = self._running.get(who, 0)
        if running >= self.settings.concurrent_requests:
            detail = f"{running} requests of this caller are in progress: wait for some of them"
            raise TooManyRequestsError(detail, retry_after_seconds=1)
        self._running[who] = running + 1
        try:
            yield
        finally:
            self._running[who] -= 1
            if not self._running[who]:
                del self._running[who]

    def refusal_of(self, address: str) -> TooManyRequestsError | None:
        """What answers a wrong token from an address from which too many came; None if there were not.

        Raises it at once if even looking at tokens costs too much: `LOOKS_PER_SECOND` are looked at, so that a right
        one passes that shares its address (a proxy's) with who guesses.
        """
        bucket = self._wrong_tokens.get(address)
        a_second = self.settings.wrong_tokens_per_minute / 60
        missing = 0.0 if bucket is None else (1 - bucket.remaining) / a_second - (self.clock() - bucket.at)
        if missing <= 0:
            return None
        refusal = TooManyRequestsError(
            "too many wrong tokens came from this address", retry_after_seconds=math.ceil(missing)
        )
        if _take(self._looks, address, LOOKS_PER_SECOND, LOOKS_AT_ONCE, self.clock()):
            raise refusal
        return refusal

    def wrong_token(self, address: str) -> None:
        """Count a wrong token from an address."""
        a_minute = self.settings.wrong_tokens_per_minute
        _take(self._wrong_tokens, address, a_minute / 60, a_minute, self.clock())

    def body(self, receive: Receive) -> TimedBody:
        """`receive` that raises TooSlowError if the body stops coming, or comes at less than a trickle."""
        return TimedBody(receive, self.settings.body_idle_seconds, self.clock)


class TimedBody:
    """A `receive` with a limit of time. `refusal` is what it raised: the framework takes it for a body of no sense.

    `is_gone`: the client has left; `is_broken_off`: before it had sent all of the body.
    """

    def __init__(self, receive: Receive, idle_seconds: float, clock: Callable[[], float]) -> None:
        self.refusal: TooSlowError | None = None
        self.is_gone = False
        self.is_broken_off = False
        self._receive = receive
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._started = clock()
        self._received = 0
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:
            message = await self._receive()
            self.is_gone = message["type"] == "http.disconnect"
            return message
        try:
            async with asyncio.timeout(self._idle_seconds):
                message = await self._receive()
        except TimeoutError:
            raise self._refused(f"nothing of the body came for {self._idle_seconds:g} s") from None
        self._received += len(message.get("body", b""))
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        # The server says the same after an answer that came before the whole body.
        self.is_gone = self.is_broken_off = message["type"] == "http.disconnect"
        late = self._clock() - self._started - self._idle_seconds
        if not self._complete and late > 0 and self._received < late * MIN_BODY_BYTES_PER_SECOND:
            raise self._refused(f"the body comes at less than {MIN_BODY_BYTES_PER_SECOND} bytes a second")
        return message

    def _refused(self, why: str) -> TooSlowError:
        self.refusal = TooSlowError(why)
        return self.refusal


def _take(buckets: dict[str, _Bucket], who: str, rate: float, size: float, now: float) -> float:
    if who not in buckets:
        if len(buckets) >= _KEPT:
            # The one that has been quiet for longest is as good as full.
            del buckets[min(buckets, key=lambda name: buckets[name].at)]
        buckets[who] = _Bucket(size, now)
    return buckets[who].take(rate, size, now)
