"""Every example of a request that the description has is one that the service takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.http import request_examples
from service.http.api_description import TAGS
from tests.service.checkpoint_files import checkpoint_files
from tests.service.rows import Rows


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """One kind of database is enough here: what is asked of it is asked on both elsewhere."""
    return migrated_sqlite_url


class Operations:
    """Calls operations by their names, with the bodies of the description."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.left: set[tuple[str, str]] = set()
        self._known: dict[str, tuple[str, str, dict[str, Any]]] = {}
        for path, operations in client.get("/openapi.json").json()["paths"].items():
            for method, operation in operations.items():
                content = operation.get("requestBody", {}).get("content", {})
                self._known[operation["operationId"]] = (method, path, content)
                self.left |= {(operation["operationId"], media) for media, facts in content.items() if facts}

    def send(
        self, name: str, media: str = "application/json", *, status: int = 200, body: Any = None, **places: Any
    ) -> Any:
        """Send an example, or a body instead of it; what its answer holds."""
        method, path, content = self._known[name]
        self.left.discard((name, media))
        example = content[media]["example"] | (body or {}) if media == "application/json" else content[media]["example"]
        sent: dict[str, Any] = {"json": example} if media == "application/json" else {"content": example}
        headers = {} if media == "application/json" else {"Content-Type": media}
        answer = self.client.request(method, path.format(**places), headers=headers, **sent)
        assert answer.status_code == status, (name, answer.text)
        return answer.json()

    def upload(self, name: str, files: Mapping[str, bytes]) -> None:
        """Send an example of a form; `files` are those that it names."""
        method, path, content = self._known[name]
        self.left.discard((name, "multipart/form-data"))
        form = content["multipart/form-data"]["example"]
        fields = {field: value for field, value in form.items() if not value.startswith("@")}
        sent = {field: (value[1:], files[field]) for field, value in form.items() if value.startswith("@")}
        answer = self.client.request(method, path, data=fields, files=sent)
        assert answer.status_code == 201, (name, answer.text)


def test_every_example_is_taken(client: TestClient, served_rows: Rows) -> None:
    operations = Operations(client)
    send = operations.send
    send("create_sweep", "application/yaml", status=201)
    sweep = send("create_sweep", status=201)["id"]
    send("annotate_sweep", sweep=sweep)
    send("extend_sweep", sweep=sweep)
    send("prioritize_sweep", sweep=sweep)
    # These take their bodies, and then refuse because nothing was measured yet.
    assert "active" in send("confirm_sweep", sweep=sweep, status=409)["detail"]
    assert "none to recommend" in send("remeasure_trial", sweep=sweep, status=404)["detail"]
    assert "no build of it is complete" in send("judge_sweep", sweep=sweep, status=409)["detail"]

    operations.upload("upload_dataset", {"file": b"one two three " * 100})
    files = checkpoint_files()
    operations.upload("upload_checkpoint", {"config": files["config"], "weights": files["weights"]})

    webhook = send("create_webhook", status=201)["id"]
    send("change_webhook", webhook=webhook)
    project = send("create_project", status=201)["name"]
    send("change_project", project=project)

    send("report_on_worker", worker=send("register_worker", status=201)["id"])
    served_rows.sweep(queued=2)
    lease = send("claim_lease", body={"worker": served_rows.worker()})
    attempt = {"trial": lease["trial"], "attempt": lease["attempt"]}
    send("send_report", **attempt)
    send("offer_artifacts", **attempt)
    following = send("finish_attempt", **attempt)["lease"]
    send("release_attempt", trial=following["trial"], attempt=following["attempt"])

    # Last: from here on, the service asks for a token.
    send("create_token", status=201)
    assert operations.left == set()


def test_every_example_and_group_is_of_an_operation(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = {operation["operationId"] for operation in operations}
    assert names >= {*request_examples.JSON, *request_examples.FORMS}
    assert [tag["name"] for tag in document["tags"]] == list(TAGS)
    assert {operation["tags"][0] for operation in operations} == set(TAGS)
    assert all(len(operation["summary"]) <= 130 for operation in operations)
