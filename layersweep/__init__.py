"""Layersweep's client: submit sweeps over layer parameters, wait for them, read their leaderboards.

from layersweep import Client

sweep = Client().submit("examples/quickstart.yaml").wait()
print(sweep.recommendation()["configuration"])
"""

from layersweep.client import Client
from layersweep.errors import (
    ConflictError,
    InvalidDocumentError,
    InvalidUsageError,
    LayersweepError,
    MissingDependencyError,
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
