"""A trial's model leaves as a checkpoint that `transformers` reads, or is refused with what is in the way."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from fastapi.testclient import TestClient
from safetensors.torch import save_file

from layers.completion import complete
from layers.modules.model import build
from service.database.models import Sweep, Trial
from service.datasets import datasets
from service.http.dependencies import Services
from service.leases import holders, queue
from service.leases import schemas as lease_schemas
from service.operations import artifacts
from tests.service.rows import Rows

TEXT = "Ein Käfer lief über den Weg, und kein Mensch sah ihn.\n" * 40


class Made:
    """A service with one complete trial of a small decoder over characters, whose weights were kept."""

    def __init__(self, client: TestClient, services: Services) -> None:
        self.client = client
        self.services = services
        self.rows = Rows(services.database)
        fields = {"name": "beetle", "tokenizer": "char"}
        dataset = client.post("/v1/datasets", data=fields, files={"file": TEXT.encode()}).json()
        self.characters: list[str] = dataset["facts"]["vocabulary"]
        self.sweep = self.rows.sweep(1)
        self.rows.update(Sweep, self.sweep, name="_beetles_ | 1", task="causal_lm", dataset_id=dataset["id"])
        worker = self.rows.worker()
        lease = services.database.write(lambda session: queue.claim(session, worker, 60))
        assert lease is not None
        self.trial = lease.trial
        self.module = self.change("rope_gpt_neox")
        folder = datasets.uploads_folder(services.settings)
        state = {name: value.contiguous() for name, value in self.module.state_dict().items()}
        save_file(state, folder / "weights")
        digest = hashlib.sha256((folder / "weights").read_bytes()).hexdigest()
        name = "weights.safetensors"
        artifacts.store(services.database, services.settings, self.trial, 1, name, folder / "weights", digest)
        (folder / "weights").unlink()
        metrics = {"latency_ms_p50": 1.0, "validation_loss": 2.5}
        body = lease_schemas.LeaseFinish.model_validate({"outcome": "complete", "metrics": metrics})
        services.database.write(lambda session: holders.finish(session, self.trial, 1, body))

    def change(self, positions: str, **others: Any) -> torch.nn.Module:
        """Give the trial a model with these positions; the module of it."""
        values = {
            "num_layers": 1,
            "hidden_size": 16,
            "attention.num_attention_heads": 2,
            "attention.position_embedding_type": positions,
            "attention.bias": False,
            "mlp.kind": "FusedGatedMLP",
            "mlp.bias": False,
            "norm.kind": "RmsNorm",
            **others,
        }
        facts = {"vocabulary_size": len(self.characters), "sequence_length": 24}
        model = complete("causal_lm", values, facts)
        configuration = {"task": "causal_lm", "model": model, "training": {}, "inference": {"sequence_length": 24}}
        self.rows.update(Trial, self.trial, configuration=configuration)
        torch.manual_seed(0)
        return build(model).eval()

    def get(self, path: str) -> Any:
        return self.client.get(f"/v1/trials/{self.trial}/{path}")


@pytest.fixture
def made(client: TestClient, services: Services) -> Made:
    return Made(client, services)


def test_the_checkpoint_gives_the_trials_logits_and_reads_its_text(made: Made, tmp_path: Path) -> None:
    described = made.get("transformers").json()
    assert (described["architecture"], described["class_name"]) == ("Llama", "LlamaForCausalLM")
    answer = made.get("transformers.zip")
    assert answer.status_code == 200
    assert list(datasets.uploads_folder(made.services.settings).iterdir()) == []
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path)

    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    sentence = "ein Mensch lief"
    ids = tokenizer(sentence, return_tensors="pt")["input_ids"]
    assert ids[0].tolist() == [made.characters.index(character) for character in sentence]
    assert tokenizer.decode(ids[0]) == sentence
    with torch.no_grad():
        torch.testing.assert_close(made.module(ids.int()), theirs(ids).logits, rtol=1e-5, atol=1e-6)
    assert theirs.generate(ids, max_new_tokens=5, do_sample=False).shape == (1, ids.shape[1] + 5)

    card = (tmp_path / "README.md").read_text()
    new_tokens = re.search(r"max_new_tokens=(\d+)", card)
    assert new_tokens
    assert 1 <= int(new_tokens[1]) <= theirs.config.max_position_embeddings - len("The ")
    assert "# \\_beetles\\_ \\| 1, trial 0" in card
    assert "| validation_loss | 2.5" in card
    assert "one seed: how far another training of the same configuration lands is not known" in card
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.parametrize("path", ["transformers", "transformers.zip"])
def test_what_no_architecture_computes_is_refused_with_the_reason(made: Made, path: str) -> None:
    made.change("alibi")
    answer = made.get(path)
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json()["rule"] == "transformers_export"
    assert "position_embedding_type is 'alibi'" in answer.json()["detail"]
    assert f"layersweep trial download {made.trial} FOLDER" in answer.json()["detail"]
    page = made.client.get(f"/trials/{made.trial}").text
    assert "transformers.zip" not in page


def test_weights_of_another_model_are_refused(made: Made) -> None:
    made.change("rope_gpt_neox", hidden_size=32)
    answer = made.get("transformers.zip")
    assert answer.status_code == 422
    assert "cannot be read as its model's" in answer.json()["detail"]
    assert list(datasets.uploads_folder(made.services.settings).iterdir()) == []


def test_a_trial_that_left_no_weights_has_no_checkpoint(made: Made) -> None:
    made.rows.queue(made.sweep, 1)
    (other,) = [each for each in made.client.get(f"/v1/sweeps/{made.sweep}/trials").json()["items"] if each["number"]]
    assert made.client.get(f"/v1/trials/{other['id']}/transformers.zip").status_code == 404
    assert made.client.get("/v1/trials/nothing/transformers.zip").status_code == 404
    assert "transformers.zip" in made.client.get(f"/trials/{made.trial}").text


def test_a_tokenizer_of_parts_of_words_goes_along(made: Made) -> None:
    fields = {"name": "parts", "tokenizer": "bpe:300"}
    dataset = made.client.post("/v1/datasets", data=fields, files={"file": (TEXT * 10).encode()}).json()
    made.rows.update(Sweep, made.sweep, dataset_id=dataset["id"])
    with zipfile.ZipFile(io.BytesIO(made.get("transformers.zip").content)) as archive:
        given = archive.read("tokenizer.json")
    assert given == made.client.get(f"/v1/datasets/{dataset['id']}/tokenizer").content
