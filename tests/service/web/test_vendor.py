from service.web import vendor


def test_every_vendored_file_is_the_recorded_one():
    assert vendor.problems() == []


def test_every_vendored_package_has_its_version_licence_and_origin():
    for package in vendor.packages():
        assert package["version"]
        assert package["licence"]
        assert package["integrity"].startswith("sha512-")
        assert any("LICENSE" in file["name"] for file in package["files"])
