"""Which runtimes support a parameter, and its values if they differ.

Layers are exported as operators that every runtime takes, so that number formats, builder's options and devices alone
differ. tests/workers/engine/test_supported_parameters.py holds this against what the runtimes say of themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from layers.declarations.inference.parameters import BUILD_OPTIONS
from layers.declarations.model import APPLIES
from layers.declarations.tensor_parallel import SHARED

RUNTIMES = ("onnxruntime", "tensorrt", "tensorrt_rtx")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a runtime supports only from a version, or on devices from a compute capability, on."""

    version: tuple[int, int] = (0, 0)
    capability: tuple[int, int] = (0, 0)

    def met(self, version: tuple[int, int], capability: tuple[int, int] | None) -> bool:
        """Whether a version on a device has it; None: whatever can be built for."""
        return version >= self.version and (capability is None or capability >= self.capability)

    def __str__(self) -> str:
        parts = [("version", self.version), ("compute capability", self.capability)]
        texts = [f"{what} {number[0]}.{number[1]}" for what, number in parts if number > (0, 0)]
        return f"needs {' and '.join(texts)}" if texts else ""


@dataclass(frozen=True, slots=True)
class Support:
    """Of one parameter by one runtime. `note`: under which condition, or why not. `values`: the same of single ones."""

    supported: bool = True
    note: str = ""
    values: Mapping[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        """In words; "yes" if there is no more to say."""
        texts = [f"no: {self.note}"] if not self.supported else [self.note] if self.note else []
        texts += [f"{value} {why}" for value, why in self.values.items()]
        return "; ".join(texts) or "yes"


DTYPES: dict[str, dict[str, Needs | str]] = {
    "onnxruntime": {
        "float32": Needs(),
        "tf32": "no: a format of NVIDIA's tensor cores",
        "float16": "no: a CPU gains nothing from it",
        "bfloat16": "no: it has no bfloat16 attention on a CPU",
    },
    "tensorrt": {
        "float32": Needs(),
        "tf32": Needs(capability=(8, 0)),
        "float16": Needs(capability=(5, 3)),
        "bfloat16": Needs(version=(9, 0), capability=(8, 0)),
    },
    "tensorrt_rtx": {
        "float32": Needs(capability=(8, 0)),
        "tf32": Needs(capability=(8, 0)),
        "float16": Needs(capability=(7, 5)),
        "bfloat16": Needs(capability=(8, 0)),
    },
}
"""A number format, or why there is none."""

MIXED: dict[str, Needs | str] = {
    "onnxruntime": "no: it runs float32 alone",
    "tensorrt": Needs(version=(10, 0)),
    "tensorrt_rtx": Needs(),
}
"""Number formats of single kinds of layers beside the model's."""

QUANTIZATIONS: dict[str, dict[str, Needs | str]] = {
    "onnxruntime": {"int8": Needs(), "fp8": "no: a CPU has no fp8 products"},
    "tensorrt": {"int8": Needs(capability=(6, 1)), "fp8": Needs(version=(10, 0), capability=(8, 9))},
    "tensorrt_rtx": {"int8": Needs(capability=(8, 0)), "fp8": Needs(capability=(8, 9))},
}
"""A quantization of the model's products, or why there is none."""

QUANTIZED_HALF: dict[str, Needs | str] = {
    "onnxruntime": "no: it runs float32 alone",
    "tensorrt": Needs(version=(10, 0)),
    "tensorrt_rtx": Needs(),
}
"""Quantization of a float16 model."""

WITH_BUILD_OPTIONS = ("tensorrt", "tensorrt_rtx")

BUILD_OPTION_NEEDS: dict[str, dict[str, Needs]] = {"weights_mib": {"tensorrt": Needs(version=(10, 0))}}
"""What a build option needs of a runtime that has build options, if not every version has it."""

SHARING_RUNTIMES = ("onnxruntime", "tensorrt")

SHARES = "above 1 by a worker of so many devices"
"""How the runtimes run what devices share."""


def support(path: str) -> dict[str, Support]:
    """What each runtime supports of a parameter, by its full name."""
    if path == "tp_size":
        return {runtime: Support(note=SHARES if runtime in SHARING_RUNTIMES else "1 alone") for runtime in RUNTIMES}
    if APPLIES.get(path) == SHARED:
        unshared = Support(supported=False, note="it runs no engine that devices share")
        return {runtime: Support() if runtime in SHARING_RUNTIMES else unshared for runtime in RUNTIMES}
    if path == "quantization":
        return {runtime: _of_quantizations(runtime) for runtime in RUNTIMES}
    section, _, name = path.rpartition(".")
    if name == "dtype":
        return {runtime: _of_dtypes(runtime, mixes=bool(section)) for runtime in RUNTIMES}
    if section == "inference" and name in BUILD_OPTIONS:
        lacking = Support(supported=False, note="its builder has no such option")
        needs = BUILD_OPTION_NEEDS.get(name, {})
        able = {runtime: Support(note=str(needs.get(runtime, Needs()))) for runtime in WITH_BUILD_OPTIONS}
        return {runtime: able.get(runtime, lacking) for runtime in RUNTIMES}
    return dict.fromkeys(RUNTIMES, Support())


def _of_dtypes(runtime: str, *, mixes: bool) -> Support:
    values = {name: str(needs) for name, needs in DTYPES[runtime].items() if str(needs)}
    mixed = str(MIXED[runtime]) if mixes else ""
    return Support(note=f"another than dtype {mixed}" if mixed else "", values=values)


def _of_quantizations(runtime: str) -> Support:
    values = {name: str(needs) for name, needs in QUANTIZATIONS[runtime].items() if str(needs)}
    half = QUANTIZED_HALF[runtime]
    return Support(values={**values, "another than none with float16": str(half)} if str(half) else values)


def in_words(path: str) -> str:
    """Support by every runtime in one text: "all", or what each says."""
    found = {runtime: str(each) for runtime, each in support(path).items()}
    if set(found.values()) == {"yes"}:
        return "all"
    if len(set(found.values())) == 1:
        return f"all: {next(iter(found.values()))}"
    return ". ".join(f"{runtime}: {says}" for runtime, says in found.items())
