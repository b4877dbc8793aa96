"""Layersweep's client: submit sweeps over layer parameters, wait for them, read their leaderboards.

from layersweep import Client

sweep = Client().submit("examples/quickstart.yaml").wait()
print(sweep.recommendation()["configuration"])
"""

from importlib import import_module
from typing import TYPE_CHECKING

from layersweep.client import Client
from layersweep.errors import (
    ConflictError,
    InvalidDocumentError,
    InvalidUsageError,
    LayersweepError,
    MissingDependencyError,
    NoFeasibleTrialError,
    NotAuthorizedError,
    NotFoundError,
    ProblemItem,
    RequestRefusedError,
    ResponseError,
    ServiceFailureError,
    UnreachableError,
    WaitTimeoutError,
)
from layersweep.leaderboard import Leaderboard
from layersweep.records.catalog import DatasetDetailRecord, DatasetRecord, WorkerRecord
from layersweep.records.recommendations import Confirmation, Recommendation
from layersweep.records.sweeps import (
    ArtifactRecord,
    EventRecord,
    LeaderboardRow,
    Objective,
    SweepDetailRecord,
    SweepPreview,
    SweepRecord,
    SweepState,
    TrialDetailRecord,
    TrialRecord,
    TrialState,
)
from layersweep.sweep import Sweep
from layersweep.version import __version__

if TYPE_CHECKING:
    from layersweep.client.asynchronous import AsyncClient
    from layersweep.sweep.asynchronous import AsyncSweep

_ASYNCHRONOUS = {"AsyncClient": "layersweep.client.asynchronous", "AsyncSweep": "layersweep.sweep.asynchronous"}


def __getattr__(name: str) -> type:
    """What an extra is needed for is imported where it is asked for. Raises MissingDependencyError without it."""
    if name in _ASYNCHRONOUS:
        found: type = getattr(import_module(_ASYNCHRONOUS[name]), name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# The names before every error ended in Error: scripts that catch them go on.
Conflict = ConflictError
InvalidDocument = InvalidDocumentError
InvalidUsage = InvalidUsageError
MissingDependency = MissingDependencyError
NotAuthorized = NotAuthorizedError
NotFound = NotFoundError
RequestRefused = RequestRefusedError
ServiceFailure = ServiceFailureError
Unreachable = UnreachableError
WaitTimeout = WaitTimeoutError

__all__ = [
    "ArtifactRecord",
    "AsyncClient",
    "AsyncSweep",
    "Client",
    "Confirmation",
    "ConflictError",
    "DatasetDetailRecord",
    "DatasetRecord",
    "EventRecord",
    "InvalidDocumentError",
    "InvalidUsageError",
    "LayersweepError",
    "Leaderboard",
    "LeaderboardRow",
    "MissingDependencyError",
    "NoFeasibleTrialError",
    "NotAuthorizedError",
    "NotFoundError",
    "Objective",
    "ProblemItem",
    "Recommendation",
    "RequestRefusedError",
    "ResponseError",
    "ServiceFailureError",
    "Sweep",
    "SweepDetailRecord",
    "SweepPreview",
    "SweepRecord",
    "SweepState",
    "TrialDetailRecord",
    "TrialRecord",
    "TrialState",
    "UnreachableError",
    "WaitTimeoutError",
    "WorkerRecord",
    "__version__",
]
