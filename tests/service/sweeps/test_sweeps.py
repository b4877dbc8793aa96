"""Sweeps over HTTP: posted, listed, read, steered and deleted.

Where trials are needed they are run by the pretend worker of `sweep_driver`: nothing is measured.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from layers.space.document import read_document
from layers.space.document_fields import MAX_STARTS
from service.common.states import SweepState
from service.database.models import Sweep
from service.database.sessions import UNSYNCHRONIZED
from service.errors import ConflictError
from service.http.dependencies import Services
from service.routes.sweeps import EXAMPLE, EXAMPLE_YAML
from service.sweeps import sweeps, validation
from service.sweeps.drafts import with_trial_ids
from service.sweeps.validation import Validation
from tests.service.sweep_driver import TWELVE_POINTS, Driver, small

POST: dict[str, Any] = small(budget={"trials": 4, "parallel": 1}, search={"reuse": True})


@pytest.fixture
def driver(client: TestClient, services: Services) -> Driver:
    driver = Driver(services.database, services.settings)
    driver.add_dataset()
    return driver


def _post(client: TestClient, document: dict[str, Any] | None = None, **headers: str) -> dict[str, Any]:
    answer = client.post("/v1/sweeps", json=document or POST, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()


def _act(client: TestClient, sweep_id: str, action: str, body: Any = None) -> Any:
    return client.post(f"/v1/sweeps/{sweep_id}:{action}", json=body)


# --- posting ----------------------------------------------------------------------------------------------------------


def test_a_posted_sweep_is_answered_with_what_was_understood(client: TestClient, driver: Driver) -> None:
    answer = client.post("/v1/sweeps", json=POST)
    sweep = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"/v1/sweeps/{sweep['id']}")
    assert (sweep["state"], sweep["reason"], sweep["dataset"]) == ("active", "waiting for a worker", "letters")
    assert (sweep["space"]["points"], sweep["space"]["feasible_share"]) == (12, 1.0)
    assert sweep["space"]["open_parameters"] == ["num_layers", "hidden_size", "attention.num_attention_heads"]
    assert (sweep["progress"]["trials"], sweep["progress"]["budget"]) == (0, 4)
    assert sweep["document"]["budget"] == {
        "trials": 4,
        "parallel": 1,
        "failures": 1000,
        "wall_seconds": None,
        "device_seconds": None,
    }
    assert sweep["sampler"] == "random"
    assert client.get(answer.headers["location"]).json() == sweep


@pytest.mark.parametrize("content_type", ["application/yaml", "application/json; charset=utf-8"])
def test_a_document_may_be_yaml_or_json(client: TestClient, driver: Driver, content_type: str) -> None:
    # JSON is YAML, too.
    text = yaml.safe_dump(POST) if "yaml" in content_type else json.dumps(POST)
    answer = client.post("/v1/sweeps", content=text, headers={"Content-Type": content_type})
    assert answer.status_code == 201, answer.text
    assert answer.json()["document"]["model"]["hidden_size"] == {"values": [32, 64]}


def test_validate_only_stores_nothing(client: TestClient, driver: Driver) -> None:
    answer = client.post("/v1/sweeps", params={"validate_only": True}, json=POST | {"search": {"sampler": "auto"}})
    assert answer.status_code == 200
    preview = answer.json()
    assert (preview["valid"], preview["sampler"], preview["space"]["points"]) == (True, "surrogate", 12)
    assert client.get("/v1/sweeps").json()["items"] == []


def test_every_problem_is_named_with_its_place(client: TestClient, driver: Driver) -> None:
    model = TWELVE_POINTS | {"hiden_size": 3, "dtype": "float7"}
    wrong = POST | {"model": model, "dataset": "nothing", "objectives": [{"metric": "beauty"}], "budget": {"trials": 0}}
    answer = client.post("/v1/sweeps", json=wrong)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problems = {problem["pointer"]: problem for problem in answer.json()["errors"]}
    assert {"/model/hiden_size", "/model/dtype", "/dataset", "/budget/trials"} <= problems.keys()
    assert "hidden_size" in problems["/model/hiden_size"]["remedy"]


def test_a_space_in_which_nothing_can_become_a_trial_is_refused_with_the_rule(
    client: TestClient, driver: Driver
) -> None:
    answer = client.post("/v1/sweeps", json=POST | {"rules": ["hidden_size > 100"]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/rules/0"


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 422),
        (b"[]", "application/json", 422),
        (b"name: x", "text/plain", 415),
        (b"name: x", None, 415),
        (b'{"a": NaN}', "application/json", 422),
        (b"x" * (1024 * 1024 + 1), "application/yaml", 413),
    ],
)
def test_bodies_that_are_no_documents(
    client: TestClient, driver: Driver, body: bytes, content_type: str | None, status: int
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert client.post("/v1/sweeps", content=body, headers=headers).status_code == status


def test_the_same_post_with_the_same_key_makes_one_sweep(client: TestClient, driver: Driver) -> None:
    headers = {"Idempotency-Key": "once"}
    first, second = (client.post("/v1/sweeps", json=POST, headers=headers) for _ in range(2))
    assert (second.status_code, second.json(), second.headers["location"]) == (
        201,
        first.json(),
        first.headers["location"],
    )
    assert client.post("/v1/sweeps", json=POST | {"name": "other"}, headers=headers).status_code == 422
    assert len(client.get("/v1/sweeps").json()["items"]) == 1


def test_a_post_sent_again_is_answered_before_it_is_validated_again(
    client: TestClient, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Idempotency-Key": "once"}
    first = client.post("/v1/sweeps", json=POST, headers=headers)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("validated again")

    monkeypatch.setattr(Validation, "prepare", refuse)
    again = client.post("/v1/sweeps", json=POST, headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())


# --- reading ----------------------------------------------------------------------------------------------------------


def test_sweeps_are_listed_by_pages_the_newest_first(client: TestClient, driver: Driver) -> None:
    made = [_post(client, POST | {"name": f"sweep {number}"})["id"] for number in range(3)]
    page = client.get("/v1/sweeps", params={"page_size": 2})
    assert [item["id"] for item in page.json()["items"]] == [made[2], made[1]]
    assert 'rel="next"' in page.headers["link"]
    rest = client.get("/v1/sweeps", params={"page_size": 2, "page_token": page.json()["next_page_token"]}).json()
    assert ([item["id"] for item in rest["items"]], rest["next_page_token"]) == ([made[0]], None)
    _act(client, made[1], "cancel")
    listed = client.get("/v1/sweeps", params={"state": "cancelled"}).json()["items"]
    assert [item["id"] for item in listed] == [made[1]]


def test_a_reader_who_has_the_newest_version_gets_304(client: TestClient, driver: Driver) -> None:
    sweep = _post(client)
    url = f"/v1/sweeps/{sweep['id']}"
    etag = client.get(url).headers["etag"]
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 304
    _act(client, sweep["id"], "pause")
    assert client.get(url, headers={"If-None-Match": etag, "Prefer": "wait=30"}).json()["state"] == "paused"


def test_progress_and_the_best_trials_are_shown(client: TestClient, driver: Driver) -> None:
    sweep = _post(client)["id"]
    driver.run_to_the_end(driver.sweep(sweep).id)
    shown = client.get(f"/v1/sweeps/{sweep}").json()
    assert (shown["state"], shown["reason"]) == ("completed", "budget_exhausted")
    assert shown["progress"] | {"complete": 4, "trials": 4, "queued": 0} == shown["progress"]
    latencies = {trial.number: trial.metrics["latency_ms_p50"] for trial in driver.trials(sweep)}
    best = shown["best"]["latency_ms_p50"]
    assert (best["value"], latencies[best["number"]]) == (min(latencies.values()), best["value"])
    assert shown["target"] == "onnxruntime 1.32.0 on Test CPU"


def test_what_is_not_there_is_404(client: TestClient, driver: Driver) -> None:
    for path in ("", ":cancel", ":pause", ":resume", ":clone"):
        ask = client.post if path else client.get
        assert ask(f"/v1/sweeps/nothing{path}").status_code == 404
    assert client.delete("/v1/sweeps/nothing").status_code == 404
    assert _act(client, "nothing", "extend", {"trials": 1}).status_code == 404


# --- steering ---------------------------------------------------------------------------------------------------------


def test_a_cancelled_sweep_stays_cancelled(client: TestClient, driver: Driver) -> None:
    sweep = _post(client)["id"]
    driver.add_worker()
    driver.step(sweep)
    lease = driver.claim()
    assert lease is not None
    cancelled = _act(client, sweep, "cancel").json()
    assert cancelled["state"] == "cancelled"
    assert (cancelled["progress"]["cancelled"], cancelled["progress"]["queued"]) == (3, 0)
    heartbeat = client.post(f"/v1/leases/{lease.trial}/{lease.attempt}:heartbeat").json()
    assert heartbeat["action"] == "cancel"
    assert _act(client, sweep, "cancel").status_code == 200
    for action in ("pause", "resume"):
        assert _act(client, sweep, action).status_code == 409
    assert _act(client, sweep, "extend", {"trials": 1}).status_code == 409


def test_a_paused_sweep_gives_out_no_trials_until_it_is_resumed(client: TestClient, driver: Driver) -> None:
    sweep = _post(client)["id"]
    driver.add_worker()
    driver.step(sweep)
    assert _act(client, sweep, "pause").json()["state"] == "paused"
    assert _act(client, sweep, "pause").status_code == 200
    assert driver.claim() is None
    assert (
        _act(client, sweep, "resume").json() | {"state": "active", "reason": None}
        == client.get(f"/v1/sweeps/{sweep}").json()
    )
    assert driver.claim() is not None


def test_a_resumed_sweep_that_has_no_target_says_again_what_it_waits_for(client: TestClient, driver: Driver) -> None:
    sweep = _post(client)["id"]
    _act(client, sweep, "pause")
    assert _act(client, sweep, "resume").json()["reason"] == "waiting for a worker"


def test_an_extension_reopens_a_sweep_that_used_up_its_budget(client: TestClient, driver: Driver) -> None:
    sweep = _post(client)["id"]
    driver.run_to_the_end(sweep)
    extended = _act(client, sweep, "extend", {"trials": 3}).json()
    assert (extended["state"], extended["reason"], extended["budget"]["trials"]) == ("active", None, 7)
    assert extended["ended_at"] is None
    driver.run_to_the_end(sweep)
    assert client.get(f"/v1/sweeps/{sweep}").json()["progress"]["complete"] == 7
    assert client.get(f"/v1/sweeps/{sweep}").json()["document"]["budget"]["trials"] == 4, "the document stays"


def test_an_extension_must_lift_what_ended_the_sweep(client: TestClient, driver: Driver) -> None:
    sweep = _post(client)["id"]
    driver.run_to_the_end(sweep)
    refusal = _act(client, sweep, "extend", {"failures": 3})
    assert (refusal.status_code, "extend trials" in refusal.json()["detail"]) == (409, True)
    exhausted = _post(client, POST | {"budget": {"trials": 100}})["id"]
    driver.run_to_the_end(exhausted)
    assert "space_exhausted" in _act(client, exhausted, "extend", {"trials": 3}).json()["detail"]


@pytest.mark.parametrize(
    "extension", [{}, {"trials": 0}, {"trials": -1}, {"wall_seconds": 60}, {"trials": 1_000_000}, {"parallel": 2}]
)
def test_extensions_that_mean_nothing(client: TestClient, driver: Driver, extension: dict[str, Any]) -> None:
    sweep = _post(client)["id"]
    assert _act(client, sweep, "extend", extension).status_code == 422


def test_a_wall_clock_extension_must_reach_beyond_now(client: TestClient, driver: Driver) -> None:
    sweep = _post(client, POST | {"budget": {"trials": 4, "wall_seconds": 1}})["id"]
    driver.run(sweep, 1)
    driver.set(sweep, started_at=1.0)
    driver.step(sweep)
    assert client.get(f"/v1/sweeps/{sweep}").json()["reason"] == "wall_seconds"
    refusal = _act(client, sweep, "extend", {"wall_seconds": 10})
    assert (refusal.status_code, refusal.json()["errors"][0]["pointer"]) == (422, "/wall_seconds")


def test_a_clone_is_the_same_document_again(client: TestClient, driver: Driver) -> None:
    sweep = _post(client)
    driver.run_to_the_end(sweep["id"])
    answer = _act(client, sweep["id"], "clone")
    clone = answer.json()
    assert (answer.status_code, clone["document"]) == (201, sweep["document"])
    assert clone["id"] != sweep["id"]
    driver.step(clone["id"])
    assert client.get(f"/v1/sweeps/{clone['id']}").json()["progress"]["reused"] == 4


def test_a_clone_starts_where_its_sweep_did_although_that_trial_is_gone(client: TestClient, driver: Driver) -> None:
    first = _post(client)["id"]
    driver.run_to_the_end(first)
    (origin, *_) = driver.trials(first)
    sweep = _post(client, POST | {"start_from": [f"trial:{origin.id}"]})
    assert client.delete(f"/v1/sweeps/{first}").status_code == 204
    answer = _act(client, sweep["id"], "clone")
    assert answer.status_code == 201, answer.text
    clone = answer.json()
    assert clone["document"] == sweep["document"]
    driver.step(clone["id"])
    started = driver.trials(clone["id"])[0]
    assert (started.started_from, started.parameters) == (f"trial:{origin.id}", origin.parameters)


def test_a_trial_is_a_start_by_its_sweep_and_number(client: TestClient, driver: Driver) -> None:
    older = _post(client, POST | {"name": "same/name"})["id"]
    newer = _post(client, POST | {"name": "same/name"})["id"]
    for each in (older, newer):
        driver.run_to_the_end(each)
    for written, sweep in (
        (f"trial:{older}/1", older),
        (f"trial:{older.lower()}/1", older),
        ("trial:same/name/1", newer),
    ):
        answer = _post(client, POST | {"start_from": [written]})
        assert answer["document"]["start_from"] == [f"trial:{driver.trials(sweep)[1].id}"]
    for wrong in (
        "trial:same/name/99",
        "trial:other/1",
        "trial:same/name/" + 30 * "9",
        "trial:/1",
        "trial:same/name/-1",
    ):
        refused = client.post("/v1/sweeps", json=POST | {"start_from": [wrong]})
        assert refused.status_code == 422
        (problem,) = refused.json()["errors"]
        assert problem["pointer"] == "/start_from/0"
        assert "trial:SWEEP/NUMBER" in problem["remedy"]


def test_trials_of_too_long_a_list_are_not_looked_up() -> None:
    looked_up: list[str] = []
    document = {"start_from": ["trial:same/0"] * (MAX_STARTS + 1)}
    assert with_trial_ids(document, looked_up.append) == document
    assert looked_up == []


def test_a_clone_with_a_key_whose_validation_takes_long_is_answered_and_made_once(
    client: TestClient, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = _post(client)["id"]
    driver.run_to_the_end(sweep)
    # Each wait for the validation is over at once: the request is asked whether its caller is still there.
    monkeypatch.setattr(validation, "LOOK_SECONDS", 0.0)
    keyed = {"Idempotency-Key": "clone-1"}
    answers = [client.post(f"/v1/sweeps/{sweep}:clone", headers=keyed) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    made = f"/v1/sweeps/{answers[0].json()['id']}"
    assert [answer.headers["location"] for answer in answers] == [made, made]


def test_only_a_sweep_that_has_ended_can_be_deleted(client: TestClient, driver: Driver) -> None:
    sweep = _post(client)["id"]
    driver.run(sweep, 2)
    assert client.delete(f"/v1/sweeps/{sweep}").status_code == 409
    _act(client, sweep, "cancel")
    assert client.delete(f"/v1/sweeps/{sweep}").status_code == 204
    assert client.get(f"/v1/sweeps/{sweep}").status_code == 404
    assert driver.trials(sweep) == []
    assert driver.asks(sweep) == []


def test_a_sweep_that_is_extended_while_it_is_deleted_is_kept(
    client: TestClient, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = _post(client)["id"]
    _act(client, sweep, "cancel")
    look = sweeps._refuse_unless

    def delete(session: Session) -> None:
        def extended_after_the_look(*looked: Any) -> None:
            look(*looked)
            extension = sa.update(Sweep).where(Sweep.id == sweep).values(state=SweepState.ACTIVE)
            session.execute(extension, execution_options=UNSYNCHRONIZED)

        monkeypatch.setattr(sweeps, "_refuse_unless", extended_after_the_look)
        sweeps.delete(session, sweep)

    with pytest.raises(ConflictError):
        driver.database.write(delete)


# --- documentation ----------------------------------------------------------------------------------------------------


def test_the_documented_examples_are_good_and_say_the_same() -> None:
    facts = {"task": "causal_lm", "tokenizer": "char", "facts": {"vocabulary_size": 64}}
    parsed, _ = read_document(EXAMPLE, find_dataset=lambda name: facts)
    assert parsed.name == EXAMPLE["name"]
    assert yaml.safe_load(EXAMPLE_YAML) == EXAMPLE


def test_openapi_documents_both_media_types(client: TestClient) -> None:
    body = client.get("/openapi.json").json()["paths"]["/v1/sweeps"]["post"]["requestBody"]
    assert body["content"].keys() == {"application/json", "application/yaml"}
    assert all("example" in content for content in body["content"].values())


def test_a_sequence_that_no_window_of_the_text_has_is_refused(client: TestClient) -> None:
    document = {**EXAMPLE, "training": {**EXAMPLE["training"], "sequence_length": {"values": [64, 1_000_000]}}}
    answer = client.post("/v1/sweeps?validate_only=true", json=document)
    assert answer.status_code == 422
    (problem,) = answer.json()["errors"]
    assert problem["pointer"] == "/training/sequence_length/values/1"
    assert "training split" in problem["detail"]
