"""Every malformed sweep document gets a 4xx problem that names the place and the remedy; nothing is stored."""

import copy
import json
from typing import Any

import pytest
import yaml

GOOD: dict[str, Any] = {
    "name": "good",
    "task": "causal_lm",
    "dataset": "python-topics",
    "model": {
        "num_layers": {"values": [1, 2]},
        "hidden_size": {"values": [32, 64]},
        "attention": {"num_attention_heads": {"values": [2, 4]}},
        "mlp": {"kind": "MLP", "ffn_hidden_size": {"derived": "4 * hidden_size"}},
    },
    "training": {"steps": 10, "batch_size": 4, "learning_rate": 1e-3},
    "inference": {"batch_size": 1, "sequence_length": 16},
    "objectives": [{"metric": "validation_loss", "goal": "minimize"}],
    "budget": {"trials": 4},
}


def _with(path: str, value: Any) -> bytes:
    """GOOD with one place changed (a path of keys, dots between them), as YAML."""
    document = copy.deepcopy(GOOD)
    node: Any = document
    *parents, last = path.split("/")
    for key in parents:
        node = node.setdefault(key, {}) if isinstance(node, dict) else node[int(key)]
    node[last] = value
    return yaml.safe_dump(document).encode()


def _alias_bomb() -> bytes:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join(lines).encode() + b"\n# " + b"x" * 10_000_000


# name -> (body, content type, a pointer that must be named ("" for the whole), a word of the answer)
CASES: dict[str, tuple[bytes, str, str, str]] = {
    "wrong type": (_with("model/num_layers", "many"), "application/yaml", "/model/num_layers", "integer"),
    "boolean for a number": (_with("model/num_layers", True), "application/yaml", "/model/num_layers", "number"),
    "unknown field": (
        _with("model/attention/num_heads", 4),
        "application/yaml",
        "/model/attention/num_heads",
        "num_attention_heads",
    ),
    "unknown section": (_with("modle", {}), "application/yaml", "/modle", "model"),
    "min above max": (_with("model/num_layers", {"min": 8, "max": 2}), "application/yaml", "/model/num_layers", "min"),
    "empty values": (_with("model/hidden_size", {"values": []}), "application/yaml", "/model/hidden_size", "value"),
    "log of zero": (
        _with("training/learning_rate", {"min": 0, "max": 1, "log": True}),
        "application/yaml",
        "/training/learning_rate",
        "log",
    ),
    "cyclic derived": (
        _with(
            "model/mlp",
            {"ffn_hidden_size": {"derived": "2 * attention.attention_head_size"}},
        ).replace(
            b"num_attention_heads:", b"attention_head_size: {derived: mlp.ffn_hidden_size}\n    num_attention_heads:"
        ),
        "application/yaml",
        "/model",
        "cycl",
    ),
    "rule that no point satisfies": (
        _with("rules", ["hidden_size < num_layers"]),
        "application/yaml",
        "/rules/0",
        "hidden_size < num_layers",
    ),
    "rule that no sample satisfies": (
        yaml.safe_dump(
            yaml.safe_load(_with("model/norm", {"kind": "LayerNorm", "eps": {"min": 1e-6, "max": 1e-4, "log": True}}))
            | {"rules": ["norm.eps > 1"]}
        ).encode(),
        "application/yaml",
        "/rules/0",
        "norm.eps > 1",
    ),
    "start outside the space": (
        _with("start_from", [{"hidden_size": 48}]),
        "application/yaml",
        "/start_from/0",
        "hidden_size",
    ),
    "start by a preset that does not fit": (
        _with("start_from", ["preset:gpt2-small"]),
        "application/yaml",
        "/start_from/0",
        "hidden_size",
    ),
    "unknown preset": (_with("start_from", ["preset:gpt9"]), "application/yaml", "/start_from/0", "preset"),
    "two parameters of one name": (yaml.safe_dump(GOOD).encode() + b"\nname: again\n", "application/yaml", "", "name"),
    "huge exponent": (_with("rules", ["2 ** 10 ** 9 > hidden_size"]), "application/yaml", "/rules/0", ""),
    "code in an expression": (
        _with("rules", ["__import__('os').system('true') == 0"]),
        "application/yaml",
        "/rules/0",
        "",
    ),
    "deep nesting": (b'{"model": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001, "application/json", "", "nest"),
    "deep expression": (_with("rules", ["(" * 2000 + "1" + ")" * 2000 + " > 0"]), "application/yaml", "/rules/0", ""),
    "alias bomb of 10 MB": (_alias_bomb(), "application/yaml", "", ""),
    "alias bomb that is small": (_alias_bomb()[:700], "application/yaml", "", ""),
    "unknown dataset": (_with("dataset", "wikipedia"), "application/yaml", "/dataset", "python-topics"),
    "NaN": (json.dumps(GOOD).replace("0.001", "NaN").encode(), "application/json", "", "NaN"),
    "NaN in YAML": (
        _with("training/learning_rate", float("nan")),
        "application/yaml",
        "/training/learning_rate",
        "finite",
    ),
    "UTF-16": (json.dumps(GOOD).encode("utf-16"), "application/json", "", "UTF-8"),
    "broken UTF-8": (b"name: \xff\xfe\n", "application/yaml", "", "UTF-8"),
    "a list": (b"[1, 2]", "application/json", "", "mapping"),
    "nothing": (b"", "application/yaml", "", ""),
    "half a document": (b'{"name": "x", ', "application/json", "", ""),
    "unknown metric": (
        _with("objectives", [{"metric": "speed", "goal": "maximize"}]),
        "application/yaml",
        "/objectives/0",
        "latency_ms_p50",
    ),
    "constraint without a comparison": (
        _with("constraints", ["latency_ms_p99 + 1"]),
        "application/yaml",
        "/constraints/0",
        "",
    ),
    "unknown sampler": (_with("search", {"sampler": "magic"}), "application/yaml", "/search/sampler", "tpe"),
    "a pruner that does nothing": (_with("search", {"pruner": "median"}), "application/yaml", "/search/pruner", ""),
    "negative budget": (_with("budget", {"trials": -1}), "application/yaml", "/budget/trials", ""),
    "huge integer": (_with("budget", {"trials": 10**30}), "application/yaml", "/budget/trials", ""),
    "fractional layers": (_with("model/num_layers", 1.5), "application/yaml", "/model/num_layers", "integer"),
    "derived that is no integer": (
        _with("model/mlp/ffn_hidden_size", {"derived": "hidden_size / 3"}),
        "application/yaml",
        "/model/mlp/ffn_hidden_size",
        "integer",
    ),
    "derived from something absent": (
        _with("model/mlp/ffn_hidden_size", {"derived": "4 * hidden_sise"}),
        "application/yaml",
        "/model/mlp/ffn_hidden_size",
        "hidden_size",
    ),
    "a mask that is not built": (
        _with("model/attention/attention_mask_type", "blocksparse"),
        "application/yaml",
        "/model/attention/attention_mask_type",
        "causal",
    ),
    "a NUL in a name": (json.dumps(GOOD | {"name": "a\x00b"}).encode(), "application/json", "/name", ""),
    "an unknown content type": (b"name=x", "application/x-www-form-urlencoded", "", ""),
}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("case", CASES)
def test_a_malformed_document_is_refused_with_its_place_and_the_remedy(client: Any, case: str) -> None:
    body, content_type, pointer, word = CASES[case]
    for path in ("/v1/sweeps", "/v1/sweeps?validate_only=true"):
        answer = client.post(path, content=body, headers={"Content-Type": content_type})
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.headers["content-type"].startswith("application/problem+json")
        problem = answer.json()
        assert problem["detail"]
        if pointer:
            named = [item["pointer"] for item in problem["errors"]]
            assert any(place == pointer or place.startswith(pointer + "/") for place in named), problem
            assert all(item["detail"] and item["remedy"] for item in problem["errors"]), problem
        assert word in answer.text, problem
    assert client.get("/v1/sweeps").json()["items"] == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_good_document_is_good(client: Any) -> None:
    answer = client.post(
        "/v1/sweeps?validate_only=true", content=yaml.safe_dump(GOOD), headers={"Content-Type": "application/yaml"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["space"]["points"] == 8
    assert client.get("/v1/sweeps").json()["items"] == []
