"""Every setting of the service: an environment variable `LAYERSWEEP_<NAME>` each."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from layersweep.logs import Form

MIB = 1024 * 1024
MOST_SECONDS = 7 * 86_400
MOST_DAYS = 36_500
"""Beyond them a moment may be none that clocks and databases have."""
MIN_SECRET_CHARACTERS = 32


class ExposureError(RuntimeError):
    """The service would be reachable from other machines and no token guards it."""


class Settings(BaseSettings):
    """Settings of one API process and its scheduler."""

    model_config = SettingsConfigDict(env_prefix="LAYERSWEEP_", validate_default=True)

    data_dir: Path = Field(default=Path("data"), description="folder of the embedded database and of the datasets")
    database_url: str = Field(
        default="", description="SQLAlchemy URL (sqlite:///file or postgresql://...); empty: SQLite in data_dir"
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8420, ge=0, le=65_535, description="port to listen on; 0 takes a free one")
    trusted_hosts: list[str] = Field(
        default=[], description="names besides loopback that a service without tokens answers to, as a JSON list"
    )

    trusted_proxies: list[IPv4Network | IPv6Network] = Field(
        default=[],
        description="networks of the proxies before it, as a JSON list: whose X-Forwarded-For and -Proto are believed",
    )
    log_format: Form = Field(default="text", description="`text` for people, or `json`: one object a line")

    traces: bool = Field(
        default=False, description="OpenTelemetry traces, sent where OTEL_EXPORTER_OTLP_ENDPOINT says; extra `otel`"
    )

    lease_seconds: float = Field(default=30, gt=0, le=3600, description="how long a lease lasts without a heartbeat")
    heartbeat_seconds: float = Field(default=10, gt=0, description="how often workers are told to send one")
    max_attempts: int = Field(default=3, ge=1, le=100, description="charged attempts after which a trial fails")
    worker_alive_seconds: float = Field(
        default=90, gt=0, le=MOST_SECONDS, description="silence after which a worker is not alive"
    )

    max_document_bytes: int = Field(default=MIB, gt=0, description="largest JSON or YAML body")
    max_upload_bytes: int = Field(default=1024 * MIB, gt=0, description="largest upload of a dataset")
    artifacts: Literal["front", "none"] = Field(
        default="front", description="whose weights, graph and engine are kept: those of trials on a front, or nobody's"
    )
    artifacts_url: str = Field(
        default="",
        description="where they are kept (s3://bucket/folder, or another that fsspec knows); empty: data_dir",
    )
    artifact_days: float = Field(
        default=0, ge=0, le=MOST_DAYS, description="days after which they are deleted; 0: never by age"
    )

    log_days: float = Field(
        default=0, ge=0, le=MOST_DAYS, description="days after which attempts' logs are deleted; 0: never"
    )
    sample_days: float = Field(
        default=0, ge=0, le=MOST_DAYS, description="days after which raw latency samples are; 0: never"
    )
    event_days: float = Field(
        default=0, ge=0, le=MOST_DAYS, description="days after a sweep's end when its trials' events are"
    )
    delivery_days: float = Field(
        default=30, ge=0, le=MOST_DAYS, description="days after which webhooks' deliveries are; 0: never"
    )
    audit_days: float = Field(default=0, ge=0, le=MOST_DAYS, description="days after which audit records are; 0: never")

    body_idle_seconds: float = Field(
        default=20, gt=0, le=MOST_SECONDS, description="longest wait for the next piece of a body"
    )
    requests_per_second: float = Field(default=2000, gt=0, description="of one token, or of all while there is none")
    concurrent_requests: int = Field(default=2500, gt=0, description="of one token, or of all while there is none")
    wrong_tokens_per_minute: float = Field(default=30, ge=1, description="from one address")
    max_wait_seconds: float = Field(
        default=60, ge=0, le=MOST_SECONDS, description="longest `Prefer: wait` that is honoured"
    )
    recheck_seconds: float = Field(
        default=1,
        gt=0,
        le=MOST_SECONDS,
        description="how often a waiting call looks at the database for changes by other processes",
    )

    secret_key: SecretStr = Field(
        default=SecretStr(""),
        description="what the webhooks' secrets are made from, 32 characters or more; empty: a file in data_dir",
    )
    webhook_allowed_networks: list[IPv4Network | IPv6Network] = Field(
        default=[], description="networks besides public addresses that webhooks may lead to, as a JSON list"
    )
    webhook_seconds: float = Field(default=10, gt=0, le=60, description="longest time for one try of a delivery")
    webhook_tries: int = Field(default=12, ge=1, le=100, description="tries after which a delivery has failed")

    pool_size: int = Field(default=10, ge=1, description="most connections to PostgreSQL of one process")
    threads: int = Field(default=32, ge=1, description="most database calls of waiting requests at one time")

    validation_processes: int = Field(
        default=2, ge=1, le=64, description="most processes that survey the spaces of large documents"
    )

    scheduler_lookahead: int = Field(
        default=2, ge=0, description="trials that are asked for ahead of need, a sweep; none by the surrogate sampler"
    )
    leader_seconds: float = Field(
        default=10, gt=0, le=MOST_SECONDS, description="how long a scheduler leads a sweep without renewing"
    )
    step_seconds: float = Field(
        default=120,
        gt=0,
        le=MOST_SECONDS,
        description="silence after which a scheduler's step of a sweep hangs, and another is begun",
    )
    sampler_seconds: float = Field(
        default=60, gt=0, description="longest time for one suggestion of a sampler that computes in its own process"
    )
    sampler_processes: int = Field(
        default=4, ge=1, le=64, description="most processes of samplers that learn; each takes 120 MB and more"
    )
    scheduler_idle_seconds: float = Field(
        default=1, gt=0, le=MOST_SECONDS, description="how often an idle scheduler looks around"
    )

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        if not self.database_url:
            self.database_url = f"sqlite:///{(self.data_dir / 'layersweep.db').absolute()}"
        if not self.artifacts_url:
            self.artifacts_url = str((self.data_dir / "artifacts").absolute())
        if 0 < len(self.secret_key.get_secret_value()) < MIN_SECRET_CHARACTERS:
            raise ValueError(
                f"LAYERSWEEP_SECRET_KEY has fewer than {MIN_SECRET_CHARACTERS} characters: openssl rand -hex 32"
            )
        if self.sampler_seconds >= self.step_seconds:
            raise ValueError(
                "LAYERSWEEP_SAMPLER_SECONDS must be less than LAYERSWEEP_STEP_SECONDS, "
                "or a slow suggestion counts as hanging"
            )
        if self.heartbeat_seconds >= self.lease_seconds:
            raise ValueError(
                "LAYERSWEEP_HEARTBEAT_SECONDS must be less than LAYERSWEEP_LEASE_SECONDS, or every lease lapses"
            )
        return self

    def check_exposure(self, has_tokens: Callable[[], bool]) -> None:
        """Raise ExposureError if other machines could reach the service and no token was ever made."""
        if not is_loopback(self.host) and not has_tokens():
            raise ExposureError(
                f"listening on {self.host} would let every machine that reaches it run sweeps: "
                "make a token first (`layersweep token create`), or listen on 127.0.0.1"
            )


def is_loopback(host: str) -> bool:
    """True for an address or a name that leads to the same machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
