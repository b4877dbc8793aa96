"""A handle on one sweep of the service: `Sweep` for threads, `AsyncSweep` (in `asynchronous`) for event loops."""

from layersweep.sweep.blocking import Sweep, record_of

__all__ = ["Sweep", "record_of"]
