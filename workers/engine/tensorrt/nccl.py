"""NCCL's collectives on a stream, through ctypes: the library that PyTorch brings, named by LAYERSWEEP_NCCL.

Signatures and numbers: nccl.h of NCCL 2 (https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/api.html).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Any

from ..protocol import RequestError
from . import cuda

LIBRARY = "LAYERSWEEP_NCCL"
"""Variable that names the library's file; left out: the loader finds it, or does not."""

TYPES: Mapping[str, int] = {"INT8": 0, "INT32": 2, "INT64": 4, "HALF": 6, "FLOAT": 7, "BF16": 9}
"""TensorRT's name of a type -> NCCL's number."""

_SUM = 0
_ID_BYTES = 128


class _UniqueId(ctypes.Structure):
    _fields_ = (("internal", ctypes.c_char * _ID_BYTES),)


class Nccl:
    """The library. Raises RequestError("unsupported") where it cannot be loaded."""

    def __init__(self) -> None:
        name = os.environ.get(LIBRARY) or "libnccl.so.2"
        try:
            self._library = ctypes.CDLL(name)
        except OSError as problem:
            raise RequestError(
                "unsupported", f"NCCL cannot be loaded ({problem}): install nvidia-nccl, or set {LIBRARY} to its file"
            ) from problem
        self._library.ncclGetErrorString.restype = ctypes.c_char_p

    def unique_id(self) -> bytes:
        """What the ranks of a new communicator find each other by."""
        found = _UniqueId()
        self._call("ncclGetUniqueId", ctypes.byref(found))
        return ctypes.string_at(ctypes.byref(found), _ID_BYTES)

    def communicator(self, rank: int, size: int, unique_id: bytes) -> NcclCommunicator:
        """Join; returns when all ranks have. Raises RequestError."""
        given = _UniqueId()
        ctypes.memmove(ctypes.byref(given), unique_id, _ID_BYTES)
        handle = ctypes.c_void_p()
        self._call("ncclCommInitRank", ctypes.byref(handle), ctypes.c_int(size), given, ctypes.c_int(rank))
        return NcclCommunicator(self, handle)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            said: bytes = self._library.ncclGetErrorString(ctypes.c_int(status)) or b""
            raise RequestError("internal", f"{name}: {said.decode(errors='replace')}")

    def reduce(self, handle: ctypes.c_void_p, source: int, target: int, shape: tuple[int, int], stream: Any) -> None:
        """`shape`: count and type."""
        count, kind = shape
        self._call(
            "ncclAllReduce",
            ctypes.c_void_p(source),
            ctypes.c_void_p(target),
            ctypes.c_size_t(count),
            ctypes.c_int(kind),
            ctypes.c_int(_SUM),
            handle,
            ctypes.c_void_p(int(stream)),
        )

    def gather(self, handle: ctypes.c_void_p, source: int, target: int, shape: tuple[int, int], stream: Any) -> None:
        """`shape`: count of one rank's elements, and type."""
        count, kind = shape
        self._call(
            "ncclAllGather",
            ctypes.c_void_p(source),
            ctypes.c_void_p(target),
            ctypes.c_size_t(count),
            ctypes.c_int(kind),
            handle,
            ctypes.c_void_p(int(stream)),
        )

    def abort(self, handle: ctypes.c_void_p) -> None:
        self._call("ncclCommAbort", handle)


class NcclCommunicator:
    """A rank's place in a group. Collectives are enqueued on a stream, and can be captured."""

    def __init__(self, library: Nccl, handle: ctypes.c_void_p) -> None:
        self._library = library
        self._handle = handle

    def enqueue(
        self, kind: str, source: cuda.Buffer, target: cuda.Buffer, shape: tuple[int, int], stream: cuda.Stream
    ) -> None:
        """`kind`: sum or gather; `shape`: elements of one rank, and the type's number. Raises RequestError."""
        collective = self._library.reduce if kind == "sum" else self._library.gather
        collective(self._handle, source.address, target.address, shape, stream.handle)

    def close(self) -> None:
        """Leave the group, without a word to the others."""
        self._library.abort(self._handle)
