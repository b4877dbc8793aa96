"""What a rank's engine adds to a runtime's: it runs segments with collectives between them, as one of a group."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Mapping

from ..base import Engine
from ..protocol import RequestError
from .star import Communicator

RANK_ENGINES: Mapping[str, tuple[str, str]] = {
    "onnxruntime": ("workers.engine.onnxruntime.rank", "OnnxRuntimeRank"),
    "tensorrt": ("workers.engine.tensorrt.rank", "TensorRtRank"),
}
"""Runtime -> module and class of a rank's engine. A runtime that is not here runs no shared engine."""


class RankEngine(Engine):
    """One rank of a shared engine. It builds single segments; what it loads is a file of `Shards`.

    Every rank of a group is asked for the same things in the same order, and each method that runs something returns
    on a rank when its part is done.
    """

    shares_scratch: bool = False
    """Whether its segments, which run one after another, compute in the same scratch memory."""

    @abstractmethod
    def invitation(self) -> bytes:
        """What rank 0 hands to the others before any of them joins: by it they find each other."""

    @abstractmethod
    def join(self, rank: int, size: int, invitation: bytes, communicator: Communicator) -> None:
        """Become one of a group, every rank at the same time; before anything is loaded."""


def rank_engine(runtime: str) -> RankEngine:
    """A rank's engine of a runtime. Raises RequestError("unsupported") if it has none, or is not installed."""
    if runtime not in RANK_ENGINES:
        raise RequestError("unsupported", f"{runtime} runs no engine that devices share: {', '.join(RANK_ENGINES)} do")
    module, name = RANK_ENGINES[runtime]
    try:
        return getattr(importlib.import_module(module), name)()
    except (ImportError, OSError) as problem:
        raise RequestError("unsupported", f"this interpreter cannot use {runtime}: {problem}") from problem
