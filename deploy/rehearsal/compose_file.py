"""docker-compose.yml and the Dockerfile, as far as the rehearsal follows them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?P<rest>:?[-?][^{}]*)?\})")
SECONDS = re.compile(r"^(\d+)s$")


class ComposeError(ValueError):
    """The file asks for something that the rehearsal does not know."""


@dataclass(frozen=True, slots=True)
class Mount:
    """`source` is an absolute path of this machine, or the name of a volume."""

    source: str
    target: str
    read_only: bool = False
    volume: bool = False


@dataclass(frozen=True, slots=True)
class HealthCheck:
    command: tuple[str, ...]
    interval_seconds: float = 30


@dataclass(frozen=True, slots=True)
class Image:
    """What an image adds to a service: of the Dockerfile's stages read from there, of others' images written down."""

    command: tuple[str, ...]
    user: int
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    health: HealthCheck | None = None


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    name: str
    command: tuple[str, ...]
    user: int
    environment: Mapping[str, str]
    read_only: bool
    mounts: tuple[Mount, ...]
    tmpfs: tuple[str, ...]
    address: str | None
    """A fixed one; None: the next free one."""
    depends_on: Mapping[str, str]
    """Service -> the condition that it must meet first."""
    health: HealthCheck | None


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """Put `variables` in for ${NAME}, ${NAME:-default} and ${NAME:?message}, in every text below `value`."""
    if isinstance(value, dict):
        return {key: interpolate(each, variables) for key, each in value.items()}
    if isinstance(value, list):
        return [interpolate(each, variables) for each in value]
    if not isinstance(value, str):
        return value

    def replaced(match: re.Match[str]) -> str:
        name, rest = match["name"], (match["rest"] or "").removeprefix(":")
        if name is None:
            return "$"
        if variables.get(name):
            return variables[name]
        if rest.startswith("?"):
            raise ComposeError(f"{name} is not set: {rest[1:]}")
        return rest.removeprefix("-")

    return VARIABLE.sub(replaced, value)


def image_of_stage(dockerfile: str, stage: str) -> Image:
    """What the Dockerfile says of a stage, and of those that it starts from. Raises ComposeError."""
    text = re.sub(r"\\\n\s*", " ", dockerfile)
    found = re.findall(r"^FROM (\S+) AS (\S+)$(.*?)(?=^FROM |\Z)", text, re.M | re.S)
    stages = {name: (base, body) for base, name, body in found}
    if stage not in stages:
        raise ComposeError(f"the Dockerfile has no stage {stage}")
    bodies: list[str] = []
    at = stage
    while at in stages:
        at, body = stages[at]
        bodies.insert(0, body)
    whole = "\n".join(bodies)
    environment = dict(
        each.split("=", 1) for line in re.findall(r"^ENV (.*)$", whole, re.M) for each in shlex.split(line)
    )
    command = re.findall(r"^CMD (\[.*\])$", whole, re.M)[-1]
    checks = re.findall(r"^HEALTHCHECK .*?--interval=(\d+)s.*? CMD (\[.*\])$", whole, re.M)
    health = HealthCheck(tuple(json.loads(checks[-1][1])), float(checks[-1][0])) if checks else None
    user = re.findall(r"useradd --uid (\d+)", whole)[-1]
    return Image(tuple(json.loads(command)), int(user), environment, health)


def services(
    file: Path, dockerfile: Path, variables: Mapping[str, str], others: Mapping[str, Image]
) -> dict[str, ServiceSpec]:
    """The services without a profile. `others` are images that are not built here, by their name without the tag.

    Raises ComposeError.
    """
    content = interpolate(yaml.safe_load(file.read_text()), variables)
    found = {name: each for name, each in content["services"].items() if "profiles" not in each}
    built = {
        each["image"]: image_of_stage(dockerfile.read_text(), each["build"]["target"])
        for each in found.values()
        if "build" in each
    }
    return {
        name: _service(
            name,
            each,
            built.get(each["image"]) or others[each["image"].partition(":")[0]],
            (*_mounts(each.get("volumes", []), file.parent), *_secrets(each, content["secrets"], file.parent)),
        )
        for name, each in found.items()
    }


def _service(name: str, given: dict[str, Any], image: Image, mounts: tuple[Mount, ...]) -> ServiceSpec:
    networks = given["networks"]
    addresses = [each["ipv4_address"] for each in networks.values()] if isinstance(networks, dict) else []
    return ServiceSpec(
        name=name,
        command=tuple(given.get("command", image.command)),
        user=int(given.get("user", str(image.user)).partition(":")[0]),
        environment={**image.environment, **given.get("environment", {})},
        read_only=given.get("read_only", False),
        mounts=mounts,
        tmpfs=tuple(given.get("tmpfs", [])),
        address=addresses[0] if addresses else None,
        depends_on={other: each["condition"] for other, each in given.get("depends_on", {}).items()},
        health=_health(given.get("healthcheck"), image.health),
    )


def _mounts(given: Iterable[Any], folder: Path) -> Iterable[Mount]:
    for each in given:
        if isinstance(each, str):
            source, target = each.split(":")[:2]
            yield Mount(source, target, each.endswith(":ro"), volume=True)
        else:
            yield Mount(str((folder / each["source"]).resolve()), each["target"], each.get("read_only", False))


def _secrets(given: dict[str, Any], declared: dict[str, Any], folder: Path) -> Iterable[Mount]:
    for name in given.get("secrets", []):
        yield Mount(str((folder / declared[name]["file"]).resolve()), f"/run/secrets/{name}", read_only=True)


def _health(given: dict[str, Any] | None, of_image: HealthCheck | None) -> HealthCheck | None:
    if given is None:
        return of_image
    if given.get("disable"):
        return None
    kind, *command = given["test"]
    if kind != "CMD":
        raise ComposeError(f"a health check by {kind} is not known: write it as CMD")
    interval = SECONDS.match(given.get("interval", "30s"))
    if interval is None:
        raise ComposeError("write the interval of a health check in seconds: 10s")
    return HealthCheck(tuple(command), float(interval[1]))
