"""Commands, settings and names of metrics: what scripts and operators wrote down."""

from __future__ import annotations

from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.golden import recordings, surface


def test_commands_are_what_was_recorded() -> None:
    recordings.compare("commands.json", surface.commands())


def test_settings_are_what_was_recorded() -> None:
    recordings.compare("settings.json", surface.settings())


def test_names_of_metrics_are_what_was_recorded(sqlite_url: str, tmp_path) -> None:
    app = create_app(Settings(database_url=sqlite_url, data_dir=tmp_path / "data"), start_scheduler=False)
    app.state.services.database.upgrade()
    with TestClient(app) as client:
        recordings.compare("metrics.txt", surface.metrics(client.get("/metrics").text))
