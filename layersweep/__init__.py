"""Layersweep's client: submit sweeps over layer parameters, wait for them, read their leaderboards.

from layersweep import Client

sweep = Client().submit("examples/quickstart.yaml").wait()
print(sweep.recommendation()["configuration"])
"""

from layersweep.client import Client
from layersweep.errors import (
    Conflict,
    InvalidDocument,
    InvalidUsage,
    LayersweepError,
    MissingDependency,
    NotAuthorized,
    NotFound,
    ProblemItem,
    RequestRefused,
    ResponseError,
    ServiceFailure,
    Unreachable,
    WaitTimeout,
)
from layersweep.leaderboard import Leaderboard
from layersweep.sweep import Sweep
from layersweep.version import __version__

__all__ = [
    "Client",
    "Conflict",
    "InvalidDocument",
    "InvalidUsage",
    "LayersweepError",
    "Leaderboard",
    "MissingDependency",
    "NotAuthorized",
    "NotFound",
    "ProblemItem",
    "RequestRefused",
    "ResponseError",
    "ServiceFailure",
    "Sweep",
    "Unreachable",
    "WaitTimeout",
    "__version__",
]
