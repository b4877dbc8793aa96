"""Which results are comparable: the version of training, export and measuring, as a worker of this code does them."""

from __future__ import annotations

RESULTS_VERSION = 8
"""Raised by every commit that changes a loss, a latency or another metric of the same configuration. A worker says it
when it registers; trials are reused by it, so that none is given a result that would come out differently today."""

UNSAID = 1
"""The version of workers that do not say theirs: they are older than it."""
