"""Templates of pages and reports."""

from __future__ import annotations

import pytest
from jinja2 import TemplateNotFound

from service.common.templates import html_environment


def test_a_new_version_on_the_disk_does_not_mix_with_the_running_one(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = html_environment()
    shown = environment.get_template("base.html")
    monkeypatch.setattr("os.path.getmtime", lambda _: 0.0)
    assert environment.get_template("base.html") is shown, "it is not read again"
    monkeypatch.setattr("builtins.open", pytest.fail)
    assert environment.get_template("new.html").name == "new.html", "its source is known from the start"
    with pytest.raises(TemplateNotFound):
        environment.get_template("../rendering.py")
