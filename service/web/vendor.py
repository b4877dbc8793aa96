"""The page's vendored libraries: one copy each under `static/vendor`, as `vendor.json` lists them.

python -m service.web.vendor           check that each file is the one that is recorded
python -m service.web.vendor --fetch   take them from their npm packages again (needs npm), after a new version
                                       was written into vendor.json; its hashes are written there

What is made here of several packages is made again by `python -m service.web.bundle`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NotRequired, TypedDict

FOLDER = Path(__file__).resolve().parent / "static" / "vendor"
MANIFEST = FOLDER / "vendor.json"


class VendoredFile(TypedDict):
    name: str
    """Here."""
    source: str
    """In the package."""
    sha256: str


class VendoredPackage(TypedDict):
    package: str
    version: str
    licence: str
    integrity: str
    """npm's, of the tarball; of what is made here, of the file that it is made from."""
    made_from: NotRequired[str]
    """The package-lock.json of what is made here of several packages."""
    files: list[VendoredFile]


class Packed(TypedDict):
    """What `npm pack` says of a tarball."""

    filename: str
    integrity: str


def packages() -> list[VendoredPackage]:
    """The recorded packages."""
    return json.loads(MANIFEST.read_text())


def problems() -> list[str]:
    """What differs between the folder and the manifest; empty if they agree."""
    recorded = {file["name"]: file["sha256"] for package in packages() for file in package["files"]}
    present = {path.name: _sha256(path.read_bytes()) for path in FOLDER.iterdir() if path != MANIFEST}
    missing = [f"{name} is missing" for name in recorded if name not in present]
    unknown = [f"{name} is not in vendor.json" for name in present if name not in recorded]
    changed = [f"{name} was changed" for name in recorded if present.get(name, recorded[name]) != recorded[name]]
    return missing + unknown + changed


def fetch() -> None:
    """Put the files of every recorded package into the folder, and their hashes into the manifest."""
    fetched = packages()
    for package in fetched:
        if "made_from" in package:
            continue
        with tempfile.TemporaryDirectory() as folder:
            specification = f"{package['package']}@{package['version']}"
            answer = subprocess.run(
                ["npm", "pack", "--json", "--silent", specification], cwd=folder, check=True, capture_output=True
            )
            packed: Packed = json.loads(answer.stdout)[0]
            package["integrity"] = packed["integrity"]
            with tarfile.open(Path(folder) / packed["filename"]) as archive:
                for file in package["files"]:
                    member = archive.extractfile(f"package/{file['source']}")
                    assert member is not None
                    content = member.read()
                    (FOLDER / file["name"]).write_bytes(content)
                    file["sha256"] = _sha256(content)
    write(fetched)


def write(recorded: list[VendoredPackage]) -> None:
    """Record packages."""
    MANIFEST.write_text(json.dumps(recorded, indent=2) + "\n")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fetch", action="store_true", help="take the files from their npm packages")
    if parser.parse_args().fetch:
        fetch()
    if found := problems():
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
