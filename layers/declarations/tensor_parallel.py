"""How the devices of a group share a model's layers: what may be set, and what must divide.

As in TensorRT-LLM: `tp_size` devices hold one model; a layer whose own tp_size is 1 is whole on each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from layers.declarations.rules import Condition, Violation
from layers.parameter import Parameter, Scalar

MOST = 8

TP_SIZE = Parameter(
    type="integer",
    minimum=1,
    maximum=MOST,
    default=1,
    meaning="devices that share the model; the target must have so many",
    source="TensorRT-LLM layers; Shoeybi et al. 2019, arXiv 1909.08053",
    search={"values": [1, 2, 4]},
)

SHARED = Condition("tp_size", tuple(range(2, MOST + 1)))
"""If there is more than one device."""


def layer_tp_size(what: str) -> Parameter:
    """A layer's own tp_size; `what` says what of the layer is split."""
    return Parameter(
        type="integer",
        minimum=1,
        maximum=MOST,
        default=None,
        meaning=f"devices that share the layer, {what}: 1 (each has all of it) or tp_size; left out: tp_size",
        source="TensorRT-LLM layers; Shoeybi et al. 2019, arXiv 1909.08053",
        search={"values": [1, 2]},
    )


def follow(model: dict[str, Scalar], section: str) -> None:
    """Fill in a layer's own tp_size."""
    if SHARED.holds(model):
        model.setdefault(f"{section}.tp_size", model["tp_size"])


def broken_rules(model: Mapping[str, Scalar], section: str, widths: Mapping[str, int]) -> Iterator[Violation]:
    """`widths`: path -> how much of it there is to be shared evenly."""
    size = int(model.get("tp_size", 1))
    path = f"{section}.tp_size"
    own = int(model.get(path, 1))
    if own not in (1, size):
        message = f"{path} is {own}: it is 1 or the model's tp_size, {size}"
        yield Violation(f"{path} of the group", message, ("tp_size", path))
    for name, width in widths.items():
        if width % own:
            yield Violation(
                f"{name} % tp_size", f"{name} {width} cannot be shared evenly by {own} devices", (name, path)
            )


def lacking_devices(model: Mapping[str, Scalar], devices: int) -> str | None:
    """Why a target of so many devices cannot spread this model, in words without its name; None if it can."""
    size = int(model.get("tp_size", 1))
    if size == 1:
        return None
    if size > devices:
        return f"spreads an engine over {devices} device{'s' if devices > 1 else ''}: tp_size {size} needs {size}"
    if (quantization := model.get("quantization", "none")) != "none":
        return f"quantizes no engine that devices share: tp_size {size} and quantization {quantization}"
    return None
