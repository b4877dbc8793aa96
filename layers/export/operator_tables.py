"""The operators that torch's exporter knows, listed once: by itself it lists them anew for every export.

That is most of what the export of a small model takes: 0.5 s of 0.6 s. What is replaced here is private to torch; with
a version that has none of it, exports are the same and take longer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

__all__ = ["operators_listed_once"]

_registries: dict[int, Any] = {}
"""By opset: which functions write an operator of torch in ONNX. Exports only read them."""


@contextmanager
def operators_listed_once() -> Generator[None]:
    """Within it torch's exporter takes the operators of ONNX that the first export of this process listed.

    Torch's own are listed once for the export, not once for the process: more may have been registered since.
    """
    # Not above: they are most of the exporter, and a process that imports this module may export nothing.
    from torch._export import utils
    from torch.onnx._internal.exporter import _registration

    with ExitStack() as stack:
        registry: Any = getattr(_registration, "ONNXRegistry", None)
        if hasattr(registry, "from_torchlib"):
            kept = staticmethod(_kept(registry.from_torchlib))
            stack.enter_context(_replaced(registry, "from_torchlib", kept))
        if hasattr(utils, "_materialize_cpp_cia_ops"):
            listed = cache(utils._materialize_cpp_cia_ops)
            stack.enter_context(_replaced(utils, "_materialize_cpp_cia_ops", listed))
        yield


def _kept(make: Callable[..., Any]) -> Callable[..., Any]:
    def kept(opset_version: int) -> Any:
        if opset_version not in _registries:
            _registries[opset_version] = make(opset_version=opset_version)
        return _registries[opset_version]

    return kept


@contextmanager
def _replaced(owner: Any, name: str, by: Any) -> Generator[None]:
    replaced = vars(owner)[name]
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, replaced)
