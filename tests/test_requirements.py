"""The locked versions in deploy/requirements/ are those of pyproject.toml; `make lock` writes them anew."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
INSTALLED = {
    "constraints.txt": ("service", "worker", "dev", "otel", "s3"),
    "service.txt": ("service", "otel", "s3"),
    "worker.txt": ("worker",),
    "worker-gpu.txt": ("worker", "gpu"),
}
"""File -> the extras that it has to hold."""


def locked(file: str) -> dict[str, list[str]]:
    """Package -> its versions: more than one where Pythons differ."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "deploy" / "requirements" / file).read_text().splitlines():
        if pinned := re.match(r"([\w.-]+)(?:\[.*\])?==(\S+)", line):
            found.setdefault(canonicalize_name(pinned[1]), []).append(pinned[2])
    return found


@pytest.mark.parametrize("file", sorted(INSTALLED))
def test_a_lock_file_holds_every_dependency_in_a_version_that_is_allowed(file: str) -> None:
    versions = locked(file)
    wanted = [*PROJECT["dependencies"], *(each for extra in INSTALLED[file] for each in EXTRAS[extra])]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name == "torch" and file != "constraints.txt":
            continue
        assert versions.get(name), f"{requirement} is not in deploy/requirements/{file}: run make lock"
        assert all(requirement.specifier.contains(each) for each in versions[name]), (file, str(requirement))


@pytest.mark.parametrize("file", sorted(set(INSTALLED) - {"constraints.txt"}))
def test_what_images_install_has_hashes_and_the_versions_of_the_tests(file: str) -> None:
    text = (ROOT / "deploy" / "requirements" / file).read_text()
    assert re.findall(r"^[\w.\[\]-]+==.*[^\\]$", text, re.MULTILINE) == [], "without a hash in the next line"
    everywhere = locked("constraints.txt")
    assert all(set(versions) <= set(everywhere[name]) for name, versions in locked(file).items())


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "deploy" / "requirements").glob("*.txt")))
def test_lock_files_name_no_index(file: str) -> None:
    assert "://" not in (ROOT / "deploy" / "requirements" / file).read_text()


def test_pytorch_is_the_same_in_images_and_checkouts() -> None:
    assert locked("torch.txt") == {"torch": locked("constraints.txt")["torch"]}
    assert not any(name.startswith(("nvidia-cu", "triton")) for name in locked("worker-gpu.txt"))
