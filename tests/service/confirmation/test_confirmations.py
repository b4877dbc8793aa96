"""Confirmations as workers, users and the scheduler see them. Nothing is trained: finishes carry made-up losses."""

from __future__ import annotations

import base64
import hashlib
import io

import numpy as np
import pytest

from service.confirmation import confirmations
from service.database import counts
from service.database.models import Sweep, Trial
from service.events import events
from service.operations import artifacts
from tests.service.confirmation.finishing import CONFIGURATION, claim, finish
from tests.service.sweep_rows import TARGET, add_trial


def test_a_confirmation_is_measured_by_the_workers_of_today(client, services, make_sweep):
    key = "onnxruntime 1.32.0 on TestCPU 3000"
    sweep = make_sweep(target={**TARGET, "key": key, "results_version": 2}, target_key=key)
    services.database.write(lambda session: session.query(Trial).update({Trial.target_key: key}))
    device = {"kind": "cpu", "uuid": "cpu", "model": "TestCPU", "memory_bytes": 2**33}
    targets = [{name: value for name, value in TARGET.items() if name != "key"}]
    body = {"name": "upgraded", "device": device, "targets": targets, "versions": {"results": "3"}}
    worker = client.post("/v1/workers", json=body).json()["id"]
    confirmation = client.post(f"/v1/sweeps/{sweep}:confirm", json={"seeds": 1, "candidates": 1}).json()["id"]
    assert client.post("/v1/leases", json={"worker": worker}).json()["sweep"] == confirmation


def test_a_sweep_whose_checkpoint_was_deleted_is_not_confirmed(client, services, make_sweep):
    sweep = make_sweep()

    def begin_with_what_is_gone(session):
        row = session.get_one(Sweep, sweep)
        row.document = {**row.document, "training": {"initialize_from": f"checkpoint:small@{'0' * 64}"}}

    services.database.write(begin_with_what_is_gone)
    answer = client.post(f"/v1/sweeps/{sweep}:confirm", json={"seeds": 1, "candidates": 1})
    assert (answer.status_code, "checkpoint 'small'" in answer.json()["detail"]) == (409, True)


def test_a_confirmation_from_the_request_to_its_intervals(client, services, make_sweep, worker):
    sweep = make_sweep()
    headers = {"Idempotency-Key": "k"}
    body = {"seeds": 3, "candidates": 2}
    made = client.post(f"/v1/sweeps/{sweep}:confirm", json=body, headers=headers)
    assert made.status_code == 201, made.text
    again = client.post(f"/v1/sweeps/{sweep}:confirm", json=body, headers=headers)
    assert again.json()["id"] == made.json()["id"]
    confirmation = made.json()
    assert confirmation["seeds"] == [1001, 1002, 1003]
    assert [each["trial"]["number"] for each in confirmation["candidates"]] == [1, 0]
    assert confirmation["candidates"][0]["recommended"]
    assert confirmation["progress"]["queued"] == 6
    assert [each["id"] for each in client.get("/v1/sweeps").json()["items"]] == [sweep], "it is listed with its sweep"

    lease = claim(client, services, worker)
    assert lease["sweep"] == confirmation["id"]
    assert lease["constraints"] == []
    assert set(lease["dataset"]["parts"]) == {"training", "validation", "test"}
    path = f"/v1/leases/{lease['trial']}/{lease['attempt']}"
    split = client.get(f"{path}/test")
    assert hashlib.sha256(split.content).hexdigest() == lease["dataset"]["parts"]["test"]["sha256"]
    assert len(np.load(io.BytesIO(split.content))["tokens"]) == lease["dataset"]["parts"]["test"]["tokens"]
    finish(client, lease)
    assert client.get(f"{path}/test").status_code == 409, "the attempt has ended"
    services.scheduler.discover_sweeps()
    for _ in range(5):
        finish(client, claim(client, services, worker))
    assert [services.database.write(confirmations.end_finished) for _ in range(2)] == [1, 0]

    (found,) = client.get(f"/v1/sweeps/{sweep}/confirmations").json()["items"]
    assert (found["state"], found["reason"]) == ("completed", "confirmed")
    own_page = client.get(f"/sweeps/{found['id']}").text
    assert f'further trainings of trials of <a href="/sweeps/{sweep}">' in own_page
    assert "none to recommend" not in own_page
    first = found["candidates"][0]
    assert [run["seed"] for run in first["runs"]] == found["seeds"]
    assert first["test"]["mean"] == pytest.approx(2.1)
    assert first["test"]["expected"]["low"] < 2.1 < first["test"]["expected"]["high"]
    assert first["optimism_nats"] == pytest.approx(2.05 - 2.0)
    assert first["kept_constraints"] is True
    assert any("too good" in line for line in first["says"])
    gap = first["test_gap_nats"]
    harder = f"the test split is {abs(gap):.4f} nats {'harder' if gap > 0 else 'easier'} than the validation split"
    assert any(line.startswith(harder) for line in first["says"])
    assert found["seed_spread_nats"] == pytest.approx(0.02)
    kinds = [event["kind"] for event in _events(services, sweep)]
    assert kinds == ["sweep.confirmation", "sweep.confirmation"]

    assert client.delete(f"/v1/sweeps/{sweep}").status_code == 204
    assert client.get(f"/v1/sweeps/{confirmation['id']}").status_code == 404


def test_one_that_was_given_up_hides_none_that_came_to_its_end(client, confirmed_sweep):
    before = client.get(f"/v1/sweeps/{confirmed_sweep}/recommendation").json()["confirmation"]
    later = client.post(f"/v1/sweeps/{confirmed_sweep}:confirm", json={"candidates": 1}).json()["id"]
    assert client.get(f"/v1/sweeps/{confirmed_sweep}/recommendation").json()["confirmation"]["id"] == later
    assert client.post(f"/v1/sweeps/{later}:cancel").status_code == 200
    assert client.get(f"/v1/sweeps/{confirmed_sweep}/recommendation").json()["confirmation"] == before
    assert "test loss of 3 further seeds" in client.get(f"/sweeps/{confirmed_sweep}").text
    assert "not confirmed yet" not in client.get(f"/v1/sweeps/{confirmed_sweep}/report?format=markdown").text


def _events(services, sweep_id):

    rows = services.database.read(lambda session: events.read(session, sweep_id, 0, 100))
    return [{"kind": row.kind, "data": row.data} for row in rows]


def test_trainings_that_are_all_the_same_have_no_interval_of_nothing(client, services, make_sweep, worker):
    sweep = make_sweep()
    made = client.post(f"/v1/sweeps/{sweep}:confirm", json={"seeds": 3, "trials": [1]})
    assert made.status_code == 201, made.text
    blocks = {"loss_sums": [20.0, 20.0, 20.0], "weight_sums": [10, 10, 10]}
    for _ in range(3):
        lease = claim(client, services, worker)
        body = {
            "outcome": "complete",
            "metrics": {"latency_ms_p50": 2.0, "validation_loss": 2.0, "test_loss": 2.0},
            "measurements": {"loss_blocks": {"validation": blocks, "test": blocks}},
        }
        answer = client.post(f"/v1/leases/{lease['trial']}/{lease['attempt']}:finish", json=body)
        assert answer.status_code == 200, answer.text
    (found,) = client.get(f"/v1/sweeps/{sweep}/confirmations").json()["items"]
    says = [*found["candidates"][0]["says"], *found["says"]]
    text = " ".join(says)
    assert "expected at 2.0000, within 0.0001" in text
    assert "as the sweep had it" in text
    assert "further seeds have the validation losses that the sweep chose by" in text
    for nothing in ("0.0000 nats", "2.0000 to 2.0000", "±"):
        assert nothing not in text.replace("test loss 2.0000 nats", "")


def test_what_cannot_be_confirmed_says_what_to_do(client, services, make_sweep):
    without_test = make_sweep("untested", test="0")
    answer = client.post(f"/v1/sweeps/{without_test}:confirm", json={})
    assert answer.status_code == 409
    assert "--test 0.1" in answer.json()["detail"]
    advice = " ".join(client.get(f"/v1/sweeps/{without_test}/recommendation").json()["certainty"]["says"])
    assert "search.replicates measures it" in advice
    assert "layersweep confirm" not in advice
    going = make_sweep("going", state="active")
    assert "has ended" in client.post(f"/v1/sweeps/{going}:confirm").json()["detail"]
    sweep = make_sweep("good")
    for body, said in (
        ({"trials": [0, 7]}, "there is no trial 7"),
        ({"trials": [2]}, "not feasible"),
        ({"seeds": 0}, "seeds"),
        ({"other": 1}, "other"),
    ):
        answer = client.post(f"/v1/sweeps/{sweep}:confirm", json=body)
        assert answer.status_code == 422, body
        assert said in answer.text
    assert client.post("/v1/sweeps/nothing:confirm").status_code == 404
    assert client.get(f"/v1/sweeps/{sweep}/confirmations").json()["items"] == []
    made = client.post(f"/v1/sweeps/{sweep}:confirm", json={"trials": [0]}).json()
    assert client.post(f"/v1/sweeps/{made['id']}:confirm").status_code == 409
    assert client.delete(f"/v1/sweeps/{sweep}").status_code == 409, "it goes on"
    assert client.post(f"/v1/sweeps/{made['id']}:cancel").status_code == 200
    assert client.delete(f"/v1/sweeps/{sweep}").status_code == 204


def put(client, path, name, content, digest=None):
    sha = base64.b64encode(hashlib.sha256(content).digest()).decode()
    headers = {"Content-Digest": digest or f"sha-256=:{sha}:"}
    return client.put(f"{path}/artifacts/{name}", content=content, headers=headers)


def test_artifacts_are_kept_of_the_front_and_fenced_by_the_attempt(client, services, make_sweep, worker):
    sweep = make_sweep(state="active")

    def queue(session):

        row = session.get(Sweep, sweep)
        trials = [add_trial(session, row, number, configuration=CONFIGURATION) for number in (10, 11)]
        counts.add(session, sweep, {})
        return [trial.id for trial in trials]

    services.database.write(queue)
    lease = claim(client, services, worker)
    path = f"/v1/leases/{lease['trial']}/{lease['attempt']}"
    assert client.get(f"{path}/test").status_code == 403, "no sweep sees the test split"
    dominated = {"metrics": {"latency_ms_p50": 2.5, "validation_loss": 2.5}}
    assert client.post(f"{path}:offer", json=dominated).json() == {"wanted": []}
    broken = {"metrics": {"latency_ms_p50": 2.95, "validation_loss": 0.1}}
    assert client.post(f"{path}:offer", json=broken).json() == {"wanted": []}
    good = {"metrics": {"latency_ms_p50": 1.5, "validation_loss": 1.0}}
    assert client.post(f"{path}:offer", json=good).json()["wanted"] == list(artifacts.NAMES)

    assert put(client, path, "model.onnx", b"graph").status_code == 204
    assert put(client, path, "model.onnx", b"graph", digest="sha-256=:AAAA:").status_code == 422
    assert put(client, path, "passwords.txt", b"x").status_code == 422
    stale = f"/v1/leases/{lease['trial']}/{lease['attempt'] + 1}"
    assert put(client, stale, "model.onnx", b"stale").status_code == 409
    assert client.post(f"{stale}:offer", json=good).status_code == 409
    trial = f"/v1/trials/{lease['trial']}"
    assert client.get(f"{trial}/artifacts").json()["items"] == [], "not before it is complete"
    finish(client, lease, latency_ms_p50=1.5, validation_loss=1.0)

    (listed,) = client.get(f"{trial}/artifacts").json()["items"]
    assert (listed["name"], listed["size_bytes"]) == ("model.onnx", 5)
    assert listed["sha256"] == hashlib.sha256(b"graph").hexdigest()
    got = client.get(f"{trial}/artifacts/model.onnx")
    assert (got.content, got.headers["etag"]) == (b"graph", f'"{listed["sha256"]}"')
    missing = client.get(f"{trial}/artifacts/model.engine")
    assert missing.status_code == 404
    assert "it has: model.onnx" in missing.json()["detail"]

    def set_rank(value):
        services.database.write(
            lambda session: session.query(Trial).filter(Trial.id == lease["trial"]).update({Trial.pareto_rank: value})
        )

    set_rank(1)
    assert artifacts.collect_garbage(services.database, services.settings) == 0
    set_rank(2)
    assert artifacts.collect_garbage(services.database, services.settings) > 0
    assert client.get(f"{trial}/artifacts").json()["items"] == []
    assert not list((services.settings.data_dir / "artifacts").rglob("*.onnx"))


def test_artifacts_lie_wherever_fsspec_reaches(client, services, make_sweep, worker, monkeypatch):
    """As an S3-compatible store does: no folder of this machine is involved."""
    monkeypatch.setattr(services.settings, "artifacts_url", "memory://artifacts-of-a-test")
    sweep = make_sweep()
    made = client.post(f"/v1/sweeps/{sweep}:confirm", json={"seeds": 1, "candidates": 1}).json()
    lease = claim(client, services, worker)
    path = f"/v1/leases/{lease['trial']}/{lease['attempt']}"
    assert client.post(f"{path}:offer", json={"metrics": {}}).json()["wanted"], "a confirmation's are always kept"
    assert put(client, path, "model.engine", b"engine").status_code == 204
    finish(client, lease)
    assert client.get(f"/v1/trials/{lease['trial']}/artifacts/model.engine").content == b"engine"
    assert not (services.settings.data_dir / "artifacts").exists()
    services.database.write(confirmations.end_finished)
    assert client.get(f"/v1/sweeps/{made['id']}").json()["state"] == "completed"
    assert client.delete(f"/v1/sweeps/{sweep}").status_code == 204
    assert artifacts.collect_garbage(services.database, services.settings) == 1, (
        "what a deleted sweep left is cleared away"
    )


def test_a_confirmation_says_how_many_trainings_gave_no_loss(client, services, make_sweep, worker):
    made = client.post(f"/v1/sweeps/{make_sweep()}:confirm", json={"seeds": 2, "candidates": 1}).json()
    lost = claim(client, services, worker)
    failed = {"outcome": "failed", "reason": "the training diverged"}
    assert client.post(f"/v1/leases/{lost['trial']}/{lost['attempt']}:finish", json=failed).status_code == 200
    finish(client, claim(client, services, worker))
    services.database.write(confirmations.end_finished)
    record = client.get(f"/v1/sweeps/{made['id']}").json()
    assert (record["state"], record["reason"]) == ("completed", "confirmed; 1 further training gave no loss")


def test_no_sweep_may_choose_by_the_test_split(client):
    body = {"name": "x", "task": "causal_lm", "dataset": "python-topics", "objectives": [{"metric": "test_loss"}]}
    answer = client.post("/v1/sweeps", json=body)
    assert answer.status_code == 422
    assert "no sweep sees the test split" in answer.text
