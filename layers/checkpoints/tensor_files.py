"""Tensors in files: weights of any size are converted one tensor after the other, and never lie in memory together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from layers.checkpoints.config_json import CheckpointError
from layers.checkpoints.tensors import Array

FORMATS = ("F64", "F32", "F16", "BF16")
"""Number formats that weights may have."""


class TensorFile(Mapping[str, Array]):
    """A safetensors file. A tensor is read when it is asked for, and comes in float32.

    Raises CheckpointError if the file is no whole one, or a tensor is in no format of `FORMATS`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with safe_open(path, framework="numpy") as opened:
                self._formats = {name: str(opened.get_slice(name).get_dtype()) for name in sorted(opened.keys())}
        except (SafetensorError, OSError, ValueError):
            raise CheckpointError("it is not a whole safetensors file") from None
        for name, kind in self._formats.items():
            if kind not in FORMATS:
                raise CheckpointError(f"it has the tensor {name} in {kind}, not in one of {', '.join(FORMATS)}")

    def __getitem__(self, name: str) -> Array:
        if self._formats[name] == "BF16":
            return self._bfloat16(name)
        with safe_open(self._path, framework="numpy") as opened:
            return opened.get_tensor(name).astype(np.float32, copy=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._formats)

    def __len__(self) -> int:
        return len(self._formats)

    def _bfloat16(self, name: str) -> Array:
        """NumPy has no such format: they are the upper halves of float32."""
        with self._path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            place: dict[str, Any] = json.loads(file.read(length))[name]
            begin, end = place["data_offsets"]
            file.seek(8 + length + begin)
            halves = np.fromfile(file, "<u2", (end - begin) // 2)
        return (halves.astype(np.uint32) << 16).view(np.float32).reshape(place["shape"])


class SpilledTensors(MutableMapping[str, Array]):
    """Tensors that are written to files of a folder as they are set, and mapped when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Path] = {}
        self._written = 0

    def __setitem__(self, name: str, tensor: Array) -> None:
        # A file of its own each time: the tensor may be made of the one that it takes the place of.
        path = self._folder / f"{self._written}.npy"
        self._written += 1
        np.save(path, np.ascontiguousarray(tensor, np.float32))
        if (before := self._files.pop(name, None)) is not None:
            before.unlink()
        self._files[name] = path

    def __getitem__(self, name: str) -> Array:
        return np.load(self._files[name], mmap_mode="r")

    def __delitem__(self, name: str) -> None:
        self._files.pop(name).unlink()

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def save(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write them as safetensors, from where they are mapped."""
        save_file({name: self[name] for name in sorted(self)}, path, dict(metadata))
