"""What pods are given, as the files say it: no kubectl is needed to read them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = ("service.yaml", "migration.yaml", "workers/base/worker.yaml")


@pytest.mark.parametrize("file", FILES)
def test_no_service_s_address_comes_as_a_setting(file: str) -> None:
    """The kubelet makes LAYERSWEEP_PORT=tcp://10.0.0.1:8420 of the Service `layersweep`: no pod would start."""
    documents = yaml.safe_load_all((DEPLOY / "kubernetes" / "base" / file).read_text())
    pods = [each["spec"]["template"]["spec"] for each in documents if each["kind"] in ("Deployment", "Job")]
    assert pods
    assert all(pod["enableServiceLinks"] is False for pod in pods)
    pod = (DEPLOY / "helm" / "templates" / "_helpers.tpl").read_text().split('define "layersweep.pod"')[1]
    assert "enableServiceLinks: false" in pod.split("{{- end }}")[0]
