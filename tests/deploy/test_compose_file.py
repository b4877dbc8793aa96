"""The rehearsal of docker-compose.yml follows what the file and the Dockerfile say."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.rehearsal.__main__ import IMAGES
from deploy.rehearsal.compose_file import ComposeError, ServiceSpec, interpolate, services

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def specs() -> dict[str, ServiceSpec]:
    return services(ROOT / "docker-compose.yml", ROOT / "Dockerfile", {"LAYERSWEEP_SECRETS": "/secrets"}, IMAGES)


def test_an_api_process_runs_what_its_image_says_as_its_user(specs: dict[str, ServiceSpec]) -> None:
    api = specs["api1"]
    assert api.command == ("layersweep", "serve")
    assert api.user == 10001
    assert api.read_only
    assert api.environment["LAYERSWEEP_HOST"] == "0.0.0.0"
    assert api.health is not None
    assert api.health.command[0] == "python"


def test_the_migration_has_no_health_check_and_goes_first(specs: dict[str, ServiceSpec]) -> None:
    assert specs["migrate"].health is None
    assert specs["api1"].depends_on["migrate"] == "service_completed_successfully"


def test_services_of_profiles_are_left_out(specs: dict[str, ServiceSpec]) -> None:
    assert "worker" in specs
    assert not {"worker-gpu", "s3", "s3-bucket"} & specs.keys()


def test_a_bound_file_is_found_from_the_compose_file_s_folder(specs: dict[str, ServiceSpec]) -> None:
    sources = {mount.source: mount.read_only for mount in specs["proxy"].mounts}
    assert sources == {str(ROOT / "deploy" / "Caddyfile"): True}


def test_each_service_sees_its_own_secrets_alone(specs: dict[str, ServiceSpec]) -> None:
    seen = {name: {each.target for each in spec.mounts if "secrets" in each.source} for name, spec in specs.items()}
    assert seen["worker"] == {"/run/secrets/work_token"}
    assert seen["api1"] == {"/run/secrets/database_url", "/run/secrets/s3_credentials"}
    assert seen["proxy"] == set()


def test_variables_are_put_in_and_a_missing_one_is_refused() -> None:
    given = {"a": ["${A}", "${B:-default}", "$${A}"], "n": 3}
    assert interpolate(given, {"A": "x"}) == {"a": ["x", "default", "${A}"], "n": 3}
    with pytest.raises(ComposeError, match="C is not set: put it into"):
        interpolate("${C:?put it into .env}", {"C": ""})
