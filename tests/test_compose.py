"""docker-compose.yml is valid, pinned and unprivileged, and its images carry what they need."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from layersweep.cli import app

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
FILE: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
SERVICES: dict[str, Any] = FILE["services"]
BASES = dict(re.findall(r"^ARG (\w+_IMAGE)=(\S+)$", DOCKERFILE, re.MULTILINE))
"""Build argument -> the image that it names where nobody gives another."""
STAGES = {
    stage: BASES.get(image.strip("${}"), image)
    for image, stage in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
}
"""Stage -> what it starts from."""
BUILT = {service["image"]: service["build"]["target"] for service in SERVICES.values() if "build" in service}


BASE = DOCKERFILE.split(" AS base\n")[1].split("\nFROM ")[0]
WIDE = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


def stage_of(service: dict[str, Any]) -> str:
    """The Dockerfile's text of the image that a service runs."""
    return DOCKERFILE.split(f" AS {BUILT[service['image']]}\n")[1].split("\nFROM ")[0]


def without_profiles() -> dict[str, Any]:
    """The file as it is read where no profile is named."""
    return {**FILE, "services": {name: each for name, each in SERVICES.items() if "profiles" not in each}}


@pytest.mark.parametrize("content", [FILE, without_profiles()], ids=["with profiles", "without"])
def test_it_validates_against_the_compose_specification(content: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "docker-compose.yml"
    file.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", file]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_one_service_builds_a_tag_and_the_others_never_pull_it() -> None:
    """Builds of one tag race when they are exported; an image that only exists here is on no registry."""
    builders = [service["image"] for service in SERVICES.values() if "build" in service]
    assert len(builders) == len(set(builders))
    for name, service in SERVICES.items():
        if service["image"] in BUILT and "build" not in service:
            assert service["pull_policy"] == "never", name


def test_every_stage_that_is_built_exists() -> None:
    assert set(BUILT.values()) == {"service", "worker", "worker-gpu"} <= STAGES.keys()


def test_a_read_only_container_gets_its_files_by_mounts() -> None:
    """A configuration that is written into the file itself is copied into the container, which read_only refuses."""
    inline = {
        name for kind in ("configs", "secrets") for name, each in FILE.get(kind, {}).items() if "file" not in each
    }
    for name, service in SERVICES.items():
        for kind in ("configs", "secrets"):
            named = {each if isinstance(each, str) else each["source"] for each in service.get(kind, [])}
            assert not (service.get("read_only") and named & inline), name


def test_every_file_that_is_mounted_exists_and_every_volume_is_declared() -> None:
    for name, service in SERVICES.items():
        for mount in service.get("volumes", []):
            source = mount["source"] if isinstance(mount, dict) else mount.partition(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file(), (name, source)
            else:
                assert source in FILE["volumes"], (name, source)
    assert all((ROOT / each["file"]).is_file() for each in FILE.get("configs", {}).values())


def test_a_folder_that_a_volume_is_mounted_on_is_made_for_the_image_s_user() -> None:
    """A new volume takes its owner from the image: elsewhere it is root's, and nothing can be written."""
    for name, service in SERVICES.items():
        if service["image"] in BUILT:
            makes = stage_of(service) + (BASE if STAGES[BUILT[service["image"]]] == "base" else "")
            made = set(re.findall(r"/\w+", "".join(re.findall(r"install -d -o layersweep (.*)", makes))))
            assert {mount.partition(":")[2] for mount in service["volumes"]} <= made, name


def test_the_profile_gpu_gives_one_container_every_gpu() -> None:
    (service,) = [service for service in SERVICES.values() if service.get("profiles") == ["gpu"]]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert service["command"] == ["layersweep", "worker", "--all-devices", "--wait-for-device"]
    stage = stage_of(service)
    assert "requirements/worker-gpu.txt" in stage
    assert 'NVIDIA_REQUIRE_CUDA="driver>=580"' in stage
    assert re.search(r"tensorrt-cu13==\d+\.\d+", stage)


def test_workers_have_a_token_of_their_own_that_works_and_does_nothing_else() -> None:
    migration = " ".join(SERVICES["migrate"]["command"])
    made = {
        variable: set(re.findall(r"--scope (\w+)", arguments))
        for arguments, variable in re.findall(r"token create (.*?) --secret-from (\w+)", migration)
    }
    assert made == {"LAYERSWEEP_TOKEN": {"admin"}, "LAYERSWEEP_WORK_TOKEN": {"work"}}
    for name in ("worker", "worker-gpu"):
        assert SERVICES[name]["environment"]["LAYERSWEEP_TOKEN_FILE"] == "/run/secrets/work_token"
        assert SERVICES[name]["secrets"] == ["work_token"]


def test_engines_outlive_the_container_of_a_worker() -> None:
    for name in ("worker", "worker-gpu"):
        assert SERVICES[name]["environment"]["XDG_CACHE_HOME"] == "/cache"
        assert "cache:/cache" in SERVICES[name]["volumes"]


def test_the_commands_of_services_and_images_exist() -> None:
    options = set(re.findall(r"--[a-z][a-z-]+", CliRunner().invoke(app, ["worker", "--help"], env=WIDE).output))
    of_images = map(json.loads, re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE))
    for command in (SERVICES["worker-gpu"]["command"], *of_images):
        assert command[:2] in (["layersweep", "serve"], ["layersweep", "worker"])
        assert set(command[2:]) <= options


def test_what_the_documentation_says_of_containers_is_there() -> None:
    """Variables, services, profiles and stages that the documentation and the files' own comments name."""
    variables = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE.read_text()))
    operating = (ROOT / "docs" / "operating.md").read_text()
    section = operating.split("## With Docker Compose")[1].split("\n## ")[0]
    assert set(re.findall(r"--profile (\w+)", section + COMPOSE.read_text())) <= {"gpu", "s3"}
    assert set(re.findall(r"docker compose (?:run --rm|exec|logs) ([\w-]+)", operating)) <= set(SERVICES)
    assert set(re.findall(r"--scale ([\w-]+)=", section + COMPOSE.read_text())) <= set(SERVICES)
    assert (
        set(re.findall(r"`(LAYERSWEEP_PUBLISH|LAYERSWEEP_SECRETS|LAYERSWEEP_\w+_(?:CPUS|MEMORY))", section))
        <= variables
    )


def test_the_proxy_s_file_sends_requests_to_the_services_that_there_are() -> None:
    caddyfile = (ROOT / "deploy" / "Caddyfile").read_text()
    backends = re.findall(r"(\w+):8420", caddyfile.split("reverse_proxy")[1].splitlines()[0])
    assert set(backends) == {name for name in SERVICES if name.startswith("api")}


def test_every_image_is_built_here_or_pinned_to_a_version() -> None:
    for name, service in SERVICES.items():
        assert service["image"] in BUILT or re.search(r":\d+\.\d+", service["image"]), name
    for image in STAGES.values():
        assert image == "base" or re.search(r":\d+\.\d+", image)


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"postgres"}))
def test_a_service_has_no_privileges(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
    if SERVICES[name]["image"] in BUILT:
        assert "\nUSER layersweep\n" in stage_of(SERVICES[name])
    elif name != "s3":  # whose volume belongs to root
        assert SERVICES[name]["user"] != "0"


def test_secrets_are_files_and_stand_in_no_environment() -> None:
    for name, service in SERVICES.items():
        for variable in service.get("environment", {}):
            if re.search("TOKEN|PASSWORD|DATABASE_URL", variable):
                assert variable.endswith("_FILE"), (name, variable)
                assert service["environment"][variable].removeprefix("/run/secrets/") in service["secrets"]


def test_a_script_makes_the_secrets_once_and_takes_over_what_an_env_file_held(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "deploy").mkdir(parents=True)
    script = checkout / "deploy" / "secrets.sh"
    script.write_text((ROOT / "deploy" / "secrets.sh").read_text())
    (checkout / ".env").write_text("LAYERSWEEP_WORK_TOKEN=as-before\n")
    for _ in range(2):
        subprocess.run(["bash", script], check=True)
        made = {file.name: file.read_text().strip() for file in (checkout / "secrets").iterdir()}
        assert made.keys() == FILE["secrets"].keys()
        assert made["work_token"] == "as-before"
        assert len(made["token"]) == 48
        assert made["database_url"] == f"postgresql://layersweep:{made['postgres_password']}@postgres/layersweep"
        (checkout / ".env").unlink(missing_ok=True)
    given = {**os.environ, "LAYERSWEEP_DATABASE_URL": "postgresql://u@elsewhere/x"}
    subprocess.run(["bash", script, tmp_path / "others"], check=True, env=given)
    assert (tmp_path / "others" / "database_url").read_text() == "postgresql://u@elsewhere/x\n"


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"migrate", "s3-bucket"}))
def test_a_service_has_limits_and_a_health_check(name: str) -> None:
    service = SERVICES[name]
    assert {"cpus", "mem_limit"} <= service.keys()
    assert "healthcheck" in service or "HEALTHCHECK" in stage_of(service)


def test_an_image_s_base_can_be_another_one() -> None:
    assert BASES.keys() == {"PYTHON_IMAGE", "CUDA_IMAGE"}
    given = [argument for service in SERVICES.values() for argument in service.get("build", {}).get("args", {}).items()]
    for argument, image in BASES.items():
        assert (argument, f"${{{argument}:-{image}}}") in given


def test_what_is_copied_is_there_and_not_ignored() -> None:
    kept = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    for sources in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists()
            assert any(source == each or source.startswith(f"{each}/") for each in kept)
