"""The client against the real service."""

from __future__ import annotations

import csv
import io
import json
import typing
from pathlib import Path

import pydantic
import pytest
import yaml

from layersweep import Client, ConflictError, InvalidDocumentError, NotFoundError, RequestRefusedError
from layersweep.cli.results import configuration_yaml
from layersweep.records import catalog, recommendations, sweeps
from service.common import states
from service.confirmation import schemas as confirmation_schemas
from service.datasets import schemas as dataset_schemas
from service.events import schemas as event_schemas
from service.leases import schemas as lease_schemas
from service.operations import schemas as artifact_schemas
from service.recommendation import schemas as recommendation_schemas
from service.results import schemas as result_schemas
from service.sweeps import schemas as sweep_schemas
from service.sweeps.catalog import schemas as catalog_schemas
from tests.layersweep.finisher import DOCUMENT, Finisher


def test_a_sweep_from_submission_to_recommendation(client: Client, document: Path, finisher: Finisher) -> None:
    versions: list[int] = []
    finisher.start()
    sweep = client.submit(document)
    sweep.wait(60, on_progress=lambda record: versions.append(record["version"]))
    assert sweep.state == "completed"
    assert versions == sorted(set(versions))
    assert sweep.record["progress"]["complete"] == 6

    trials = list(sweep.trials())
    assert [trial["number"] for trial in trials] == list(range(6))
    board = sweep.leaderboard()
    assert len(board) == board.total == 6
    assert board[0]["on_front"]
    assert [row["rank"] for row in board] == sorted(row["rank"] or 99 for row in board)
    fastest = sweep.leaderboard(sort="latency_ms_p50", limit=1)
    assert fastest[0]["metrics"]["latency_ms_p50"] == min(row["metrics"]["latency_ms_p50"] for row in board)
    assert {row["trial"] for row in sweep.front()} == {row["trial"] for row in board if row["on_front"]}
    assert len(list(csv.DictReader(io.StringIO(sweep.leaderboard_csv())))) == 6
    assert list(sweep.dataframe()["hidden_size"])

    recommendation = sweep.recommendation()
    assert recommendation["trial"]["on_front"]
    detail = client.trial(recommendation["trial"]["trial"])
    assert detail["configuration"] == recommendation["configuration"]
    assert detail["attempts"][0]["outcome"] == "complete"

    kinds = [event["kind"] for event in client.events(sweep)]
    assert kinds.count("trial.ended") == 6
    assert [found.id for found in client.sweeps()] == [sweep.id]


def test_a_recommended_configuration_can_be_swept_again(client: Client, document: Path, finisher: Finisher) -> None:
    finisher.start()
    recommendation = client.submit(document).wait(60).recommendation()
    pasted = yaml.safe_load(configuration_yaml(recommendation["configuration"], "python-topics"))
    pasted["model"]["hidden_size"] = {"values": [16, 32, 64]}
    del pasted["model"]["embedding"], pasted["model"]["mlp"]["ffn_hidden_size"]
    del pasted["model"]["attention"]["attention_head_size"]
    pasted |= {"name": "again", "objectives": [{"metric": "validation_loss", "goal": "minimize"}]}
    preview = client.validate(pasted)
    assert preview["space"]["open_parameters"] == ["hidden_size"]


def test_an_answer_has_the_keys_that_the_records_name() -> None:
    pairs: list[tuple[type[pydantic.BaseModel], type]] = [
        (sweep_schemas.Sweep, sweeps.SweepRecord),
        (sweep_schemas.SweepDetail, sweeps.SweepDetailRecord),
        (sweep_schemas.SweepPreview, sweeps.SweepPreview),
        (sweep_schemas.CostEstimate, sweeps.CostEstimate),
        (sweep_schemas.Progress, sweeps.Progress),
        (sweep_schemas.SpaceFacts, sweeps.SpaceFacts),
        (sweep_schemas.Budget, sweeps.Budget),
        (event_schemas.Event, sweeps.EventRecord),
        (lease_schemas.Trial, sweeps.TrialRecord),
        (lease_schemas.TrialDetail, sweeps.TrialDetailRecord),
        (lease_schemas.Attempt, sweeps.AttemptRecord),
        (lease_schemas.CurvePoint, sweeps.CurvePoint),
        (result_schemas.LeaderboardRow, sweeps.LeaderboardRow),
        (confirmation_schemas.RecommendationDetail, recommendations.Recommendation),
        (recommendation_schemas.Trade, recommendations.Trade),
        (recommendation_schemas.Neighbour, recommendations.Neighbour),
        (confirmation_schemas.Confirmation, recommendations.Confirmation),
        (confirmation_schemas.ConfirmedTrial, recommendations.ConfirmedTrial),
        (confirmation_schemas.Estimate, recommendations.Estimate),
        (recommendation_schemas.LimitStep, recommendations.LimitStep),
        (recommendation_schemas.ConstraintSlack, recommendations.ConstraintSlack),
        (recommendation_schemas.SmallerTrial, recommendations.SmallerTrial),
        (recommendation_schemas.Certainty, recommendations.Certainty),
        (recommendation_schemas.ComplexityPoint, recommendations.ComplexityPoint),
        (recommendation_schemas.Complexity, recommendations.Complexity),
        (recommendation_schemas.ParameterDifference, recommendations.ParameterDifference),
        (recommendation_schemas.StartResult, recommendations.StartResult),
        (recommendation_schemas.NearestPreset, recommendations.NearestPreset),
        (recommendation_schemas.Literature, recommendations.Literature),
        (recommendation_schemas.TargetFit, recommendations.TargetFit),
        (recommendation_schemas.Compatibility, recommendations.Compatibility),
        (recommendation_schemas.Evidence, recommendations.Evidence),
        (confirmation_schemas.Interval, recommendations.Interval),
        (confirmation_schemas.ConfirmationRun, recommendations.ConfirmationRun),
        (dataset_schemas.DataEvidence, recommendations.DataEvidence),
        (artifact_schemas.Artifact, sweeps.ArtifactRecord),
        (dataset_schemas.Dataset, catalog.DatasetRecord),
        (dataset_schemas.DatasetDetail, catalog.DatasetDetailRecord),
        (dataset_schemas.Implication, catalog.Implication),
        (catalog_schemas.LayerKind, catalog.LayerKind),
        (catalog_schemas.LayerParameter, catalog.LayerParameter),
        (catalog_schemas.Preset, catalog.Preset),
        (catalog_schemas.Target, catalog.Target),
        (lease_schemas.Capabilities, catalog.Capabilities),
        (lease_schemas.Device, catalog.Device),
        (lease_schemas.Worker, catalog.WorkerRecord),
        (lease_schemas.Execution, catalog.Execution),
    ]
    for schema, record in pairs:
        assert set(schema.model_fields) == set(typing.get_type_hints(record)), schema.__name__
    assert typing.get_args(sweeps.TrialState) == tuple(states.TrialState)
    assert typing.get_args(sweeps.SweepState) == tuple(states.SweepState)


def test_steering_a_real_sweep(client: Client) -> None:
    sweep = client.submit(DOCUMENT)
    assert sweep.pause().state == "paused"
    assert sweep.resume().state == "active"
    assert sweep.extend(trials=2).record["budget"]["trials"] == 8
    assert sweep.cancel().state == "cancelled"
    with pytest.raises(ConflictError):
        sweep.pause()
    with pytest.raises(NotFoundError):
        sweep.recommendation()


def test_the_same_key_submits_once(client: Client) -> None:
    first = client.submit(DOCUMENT, idempotency_key="monday")
    again = client.submit(DOCUMENT, idempotency_key="monday")
    assert first.id == again.id
    assert len(list(client.sweeps())) == 1
    with pytest.raises(RequestRefusedError):
        client.submit(DOCUMENT.replace("small", "other"), idempotency_key="monday")


def test_every_problem_of_a_document_comes_with_its_place_and_remedy(client: Client) -> None:
    wrong = DOCUMENT.replace("[16, 32]", "[]").replace("sampler: random", "sampler: oracle")
    with pytest.raises(InvalidDocumentError) as raised:
        client.submit(wrong)
    pointers = {item.pointer for item in raised.value.errors}
    assert any(pointer.startswith("/model/hidden_size") for pointer in pointers)
    assert any(pointer.startswith("/search/sampler") for pointer in pointers)
    assert all(item.remedy for item in raised.value.errors)
    assert list(client.sweeps()) == []


def test_datasets_layers_presets_and_workers(client: Client, tmp_path: Path, finisher: Finisher) -> None:
    text = tmp_path / "poem.txt"
    text.write_text("to be or not to be, that is the question. " * 200)
    added = client.add_dataset("poem", text, tokenizer="char", validation=0.2)
    assert added["name"] == "poem"
    assert {dataset["name"] for dataset in client.datasets()} == {"python-topics", "digits", "poem"}
    assert "baselines_nats" in client.dataset("poem")["profile"]
    client.delete_dataset("poem")
    with pytest.raises(NotFoundError):
        client.dataset("poem")
    assert {section["section"] for section in client.layers()} >= {"model", "attention", "mlp", "norm"}
    assert any(preset["name"] == "nanogpt-char-cpu" for preset in client.presets())
    worker = finisher.register()
    assert [found["id"] for found in client.workers()] == [worker]
    assert [target["runtime"] for target in client.targets()] == ["onnxruntime"]


def test_a_sweep_is_cloned_exported_and_deleted(
    client: Client, document: Path, finisher: Finisher, tmp_path: Path
) -> None:
    sweep = client.submit(document)
    finisher.start()
    sweep.wait(60)
    sweep.export(tmp_path / "all.jsonl", sort="number")
    lines = (tmp_path / "all.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == list(range(6))
    sweep.export(tmp_path / "all.csv")
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 7
    clone = sweep.clone().wait(60)
    assert clone.id != sweep.id
    assert clone.record["progress"]["reused"] > 0
    client.delete_sweep(sweep.id)
    with pytest.raises(NotFoundError):
        client.sweep(sweep.id)
