"""What a child sees of its parent's environment: what libraries are found and tuned by, and no secret."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM"),
        *("TMPDIR", "TEMP", "TMP", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
        *("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONHASHSEED", "PYTHONFAULTHANDLER", "PYTHONWARNINGS"),
        *("PYTHONUTF8", "PYTHONIOENCODING", "PYTHONMALLOC", "PYTHONNOUSERSITE", "PYTHONUSERBASE"),
        *("GLIBC_TUNABLES", "CC", "CXX"),
    }
)
"""Variables of the system and of the interpreter."""

PREFIXES = (
    *("LC_", "LD_", "DYLD_", "MALLOC_", "PYENV_", "CONDA_"),
    *("CUDA_", "NVIDIA_", "NVPL_", "CUBLAS_", "CUDNN_", "NCCL_", "TRT_", "TENSORRT_", "ORT_", "ONNX"),
    *("TORCH", "PYTORCH_", "TRITON_", "ATEN_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "VECLIB_", "DNNL_", "ONEDNN_"),
)
"""Beginnings of the names by which loaders, devices and numeric libraries are told what to do."""

QUIET = {"ORT_DISABLE_TELEMETRY": "1"}
"""ONNX Runtime would keep an id of this machine and a database of its use in the user's cache folder."""


NCCL_VARIABLE = "LAYERSWEEP_NCCL"
"""Names the file of NCCL to an engine child whose devices share an engine."""


def nccl_library() -> str | None:
    """NCCL's library as PyTorch brings it, or as the variable names it; None if there is none."""
    if named := os.environ.get(NCCL_VARIABLE):
        return named
    with contextlib.suppress(ImportError, ValueError):
        found = importlib.util.find_spec("nvidia.nccl")
        for folder in found.submodule_search_locations or () if found is not None else ():
            for path in sorted(Path(folder).glob("lib/libnccl.so*")):
                return str(path)
    return None


def child_environment(python: str, root: Path, added: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child that the interpreter `python` runs with the modules below `root`."""
    kept = {name: value for name, value in os.environ.items() if name in NAMES or name.startswith(PREFIXES)}
    path = [str(root)]
    # Packages for this interpreter are of no use to another version, and would hide its own.
    if python == sys.executable and (packages := os.environ.get("PYTHONPATH")):
        path.append(packages)
    return {**QUIET, **kept, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1", **added}
