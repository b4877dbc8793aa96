"""axe-core, the accessibility checks of Deque (MPL-2.0): the npm package, fetched once and kept in pytest's cache.

`npm pack` fetches it where there is npm; elsewhere its tarball comes from the registry by the address that every
registry has for it. Either way it is the one whose hash stands here, or it is not used.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import httpx2

VERSION = "4.14.1"
INTEGRITY = "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
"""As the registry's own record and a package-lock.json have it."""

REGISTRY = "https://registry.npmjs.org"
NAME = f"axe-core-{VERSION}.tgz"
PATIENCE_SECONDS = 40
SERIOUS = ("serious", "critical")


class NoAxe(Exception):
    """The package cannot be had here and now."""


def script(cache: Path) -> str:
    """The source of axe-core's axe.min.js. Raises NoAxe where it neither lies in `cache` nor can be fetched."""
    kept = cache / NAME
    if not kept.exists():
        content = _packed_by_npm() or _downloaded()
        if (found := integrity(content)) != INTEGRITY:
            raise NoAxe(f"{NAME} from the npm registry is not what was published: its hash is {found}, not {INTEGRITY}")
        # Put there in one step: other processes of this run may look at the same time.
        with tempfile.NamedTemporaryFile(dir=cache, delete=False) as new:
            new.write(content)
        Path(new.name).replace(kept)
    content = kept.read_bytes()
    if integrity(content) != INTEGRITY:
        raise ValueError(f"{kept} was changed: remove it")
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        file = package.extractfile("package/axe.min.js")
        assert file is not None
        return file.read().decode()


def integrity(content: bytes) -> str:
    """The hash as npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


def _packed_by_npm() -> bytes | None:
    """By npm, which knows the registry, the proxy and the credentials of this machine; None where it does not help."""
    npm = shutil.which("npm")
    if npm is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"axe-core@{VERSION}", "--pack-destination", folder, "--silent", "--fetch-retries", "0"]
        try:
            subprocess.run(command, cwd=folder, capture_output=True, timeout=PATIENCE_SECONDS, check=True)
            return (Path(folder) / NAME).read_bytes()
        except (OSError, subprocess.SubprocessError):
            return None


def _downloaded() -> bytes:
    registry = os.environ.get("npm_config_registry", REGISTRY).rstrip("/")  # noqa: SIM112  (npm reads it so)
    try:
        answer = httpx2.get(f"{registry}/axe-core/-/{NAME}", follow_redirects=True, timeout=PATIENCE_SECONDS)
        answer.raise_for_status()
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise NoAxe(f"axe-core cannot be fetched from the npm registry: {error!r}") from error
    return answer.content


def violations(page: Any, axe_script: str) -> list[str]:
    """What axe-core finds on the page as it is now, its serious and critical rules, each with its first places.

    Through the page's debugger, which the page's Content-Security-Policy does not bind.
    """
    page.evaluate(axe_script)
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{rule['id']} ({rule['impact']}): {rule['help']}: "
        + "; ".join(f"{' '.join(map(str, node['target']))} {node['failureSummary']!r}" for node in rule["nodes"][:3])
        for rule in found["violations"]
        if rule["impact"] in SERIOUS
    ]
