"""What a builder finds out about its kernels, kept for the builds to come: TensorRT's timing cache.

A layer that was timed before is not timed again: similar models build faster, and with the same tactics.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..protocol import RequestError
from .log import Complaints
from .plan_file import read_plan, write_plan


@dataclass(frozen=True)
class TimingFile:
    """The timings of one runtime in one version on one device, which `origin` names. It may be lost at any time."""

    folder: Path
    origin: Mapping[str, str]
    """runtime, version, device"""

    @property
    def path(self) -> Path:
        return self.folder / f"{'-'.join(self.origin.values())}.timings"

    def attach(self, config: Any, complaints: Complaints) -> Any:
        """Let a builder's configuration use what is known; returns the cache that the build will have added to.

        The file is taken away: a build that dies or fails over it leaves none, so that the next starts without. What
        the library has against it costs no build.
        """
        known = self._taken()
        heard = len(complaints.errors)
        cache = config.create_timing_cache(known)
        attached = cache is not None and config.set_timing_cache(cache, False)
        said = complaints.errors[heard:]
        del complaints.errors[heard:]
        if attached and not said:
            return cache
        self._say("ignored, the library does not take it" + "".join(f": {message}" for message in said))
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
        return cache

    def keep(self, cache: Any) -> None:
        """Keep the cache of a build that went well. Where it cannot be written, the next build starts without."""
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_plan(part, memoryview(cache.serialize()), dict(self.origin))
            part.replace(self.path)
        except (OSError, RequestError) as problem:
            self._say(f"not kept: {problem}")
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _taken(self) -> bytes:
        """What the file holds, which is then gone; nothing where it is missing, damaged, or another's."""
        try:
            held = read_plan(self.path)
            self.path.unlink()
        except FileNotFoundError:
            return b""
        except RequestError:
            self._say("ignored, it is damaged")
            return b""
        except OSError as problem:
            self._say(f"ignored: {problem}")
            return b""
        if held.about != dict(self.origin):
            self._say(f"ignored, it is of {held.about}")
            return b""
        return held.content

    def _say(self, what: str) -> None:
        sys.stderr.write(f"{self.origin['runtime']}: timing cache {self.path}: {what}\n")
