"""What can be swept, as it crosses HTTP: layers, presets and targets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from layers.capabilities import Capabilities
from layers.parameter import SearchDefault
from layers.presets import PresetDocument
from service.common.schemas import AS_STORED, Scalar, Schema
from service.leases.schemas import Runtime


class ParameterSupport(Schema):
    supported: bool
    note: str = Field(description="under which condition, or why not; empty where it is simply supported")
    values: dict[str, str] = Field(description="single values that need something, or that the runtime has not: why")


class LayerParameter(Schema):
    path: str
    type: Literal["boolean", "integer", "number", "string"]
    default: Scalar | None
    required: bool
    minimum: float | None
    maximum: float | None
    choices: list[str]
    meaning: str
    source: str
    search: Annotated[SearchDefault, AS_STORED] | None = Field(
        description="a search default that can be pasted into a sweep document"
    )
    per_layer: bool = Field(description="whether it can be independent in each layer")
    targets: dict[str, ParameterSupport] = Field(description="what each runtime supports of it")


class LayerKind(Schema):
    section: str = Field(description="model, attention, mlp, norm, embedding, training or inference")
    kinds: list[str]
    parameters: list[LayerParameter]


class Preset(Schema):
    name: str
    task: str
    title: str
    source: str
    url: str
    document: Annotated[PresetDocument, AS_STORED] = Field(description="the parts of a sweep document that it sets")


class Target(Schema):
    key: str
    runtime: Runtime
    version: str
    device_model: str
    capabilities: Annotated[Capabilities, AS_STORED]
    workers: list[str]


class QuantityModel(Schema):
    """How well a metric of a target is predicted from its measured trials, each from all others."""

    metric: str
    trials: int
    error_share: float = Field(description="mean absolute error over the value")
    covered_share: float = Field(description="of the trials: within their own 90 % interval")
    false_rejections: int = Field(
        description="of the trials that keep a limit at the median: would be rejected before they are built"
    )
    rejections: int = Field(description="of the trials that break it: would be rejected")


class DeviceModel(Schema):
    """What is known of a target from the trials that were measured on it."""

    target: str
    trials: int = Field(description="measured trials that it rests on: the newest 200")
    fewest_trials: int = Field(description="with fewer, `quantities` is empty")
    quantities: list[QuantityModel]
