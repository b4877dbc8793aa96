import shutil
import subprocess

import pytest

from service.web import bundle, vendor


def test_every_vendored_file_is_the_recorded_one():
    assert vendor.problems() == []


def test_every_vendored_package_has_its_version_licence_and_origin():
    for package in vendor.packages():
        assert package["version"]
        assert package["licence"]
        assert package["integrity"].startswith("sha512-")
        assert any("LICENSE" in file["name"] for file in package["files"])


def test_the_bundle_is_recorded_with_what_it_is_made_from_and_stays_small():
    [recorded] = [package for package in vendor.packages() if package["package"] == bundle.NAME]
    assert recorded["integrity"] == bundle.integrity(), "make it again: python -m service.web.bundle"
    assert all(package.get("integrity", "").startswith("sha512-") for package in bundle.locked().values())
    licences = (vendor.FOLDER / bundle.LICENCES).read_text()
    for folder, package in bundle.locked().items():
        assert f"{folder.removeprefix('node_modules/')} {package.get('version')}\n" in licences
    assert (vendor.FOLDER / bundle.SCRIPT).stat().st_size < 400_000


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on this machine")
def test_the_bundle_is_made_again_as_it_is():
    try:
        made = bundle.build()
    except subprocess.CalledProcessError as error:
        pytest.skip(str(error))
    assert made == {name: (vendor.FOLDER / name).read_bytes() for name in made}
