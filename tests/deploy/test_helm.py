"""The chart has the objects of the kustomizations: neither is changed without the other."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm"
OPERATORS = ("keda", "kueue", "prometheus")
OF_KUSTOMIZE_ALONE = {"app.kubernetes.io/part-of", "namespace"}
"""Helm installs into the namespace that it is given."""

Objects = dict[tuple[str, str], Any]
pytestmark = pytest.mark.skipif(not (shutil.which("helm") and shutil.which("kubectl")), reason="needs helm and kubectl")


def _objects(*command: str | Path) -> Objects:
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = (document for document in yaml.safe_load_all(text) if document)
    # A job cannot be changed: the chart's has the number of the release.
    return {(each["kind"], each["metadata"].pop("name").removesuffix("-1")): _comparable(each) for each in found}


def _rendered(*options: str) -> Objects:
    return _objects("helm", "template", "layersweep", CHART, "--namespace", "layersweep", *options)


def _comparable(part: Any) -> Any:
    if isinstance(part, dict):
        kept = {name: _comparable(value) for name, value in part.items() if name not in OF_KUSTOMIZE_ALONE}
        return {name: value for name, value in kept.items() if value != {}}
    return [_comparable(each) for each in part] if isinstance(part, list) else part


@pytest.mark.parametrize(("kustomization", "enabled"), [("base", ()), ("autoscaled", OPERATORS)])
def test_the_chart_gives_the_same_objects(kustomization: str, enabled: tuple[str, ...]) -> None:
    options = [option for name in enabled for option in ("--set", f"{name}.enabled=true")]
    expected = _objects("kubectl", "kustomize", ROOT / "deploy" / "kubernetes" / kustomization)
    # The one who installs makes the namespace.
    del expected["Namespace", "layersweep"]
    assert _rendered(*options) == expected


def test_another_kind_of_worker_is_a_few_values() -> None:
    options = [
        *("--set", "workers.l4.image=workerGpu", "--set", "workers.l4.replicas=3"),
        *("--set-string", r"workers.l4.nodeSelector.nvidia\.com/gpu\.product=NVIDIA-L4"),
    ]
    pods = _rendered(*options)["Deployment", "worker-l4"]["spec"]
    assert pods["replicas"] == 3
    assert pods["template"]["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    assert pods["template"]["spec"]["containers"][0]["image"] == "layersweep-worker-gpu:local"
