"""The kustomizations can be built, what they name is there, and pods are confined and know the settings that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
NEEDED_SECRETS = {
    "layersweep-service": {"database_url", "token", "work_token"},
    "layersweep-worker": {"work_token"},
    "layersweep-prometheus": {"token"},
}
"""What docs/operating.md says to make beforehand, with their keys."""

Manifest = dict[str, Any]
pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl, for its kustomize")


def built(name: str) -> list[Manifest]:
    command = ["kubectl", "kustomize", FOLDER / name]
    return list(yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


@pytest.fixture(scope="module", params=["base", "autoscaled"])
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return built(request.param)


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [each for each in manifests if each["kind"] in kinds]


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Name of the Deployment or Job -> its pod's template."""
    return {each["metadata"]["name"]: each["spec"]["template"] for each in of_kind(manifests, "Deployment", "Job")}


def containers(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest, Manifest]]:
    for name, template in pods(manifests).items():
        for container in template["spec"]["containers"]:
            yield name, template["spec"], container


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return selector.items() <= labels.items()


def test_everything_lies_in_one_namespace(manifests: list[Manifest]) -> None:
    cluster_wide = {"Namespace", "ClusterQueue", "ResourceFlavor"}
    spaces = {each["metadata"].get("namespace") for each in manifests if each["kind"] not in cluster_wide}
    assert spaces == {"layersweep"}


def test_a_pod_has_no_privileges_and_limits_of_its_own(manifests: list[Manifest]) -> None:
    for name, pod, container in containers(manifests):
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False, "LAYERSWEEP_PORT would be an address"
        confined = container["securityContext"]
        assert confined == {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()


def test_what_is_mounted_is_declared_and_comes_from_what_there_is(manifests: list[Manifest]) -> None:
    claims = {each["metadata"]["name"] for each in of_kind(manifests, "PersistentVolumeClaim")}
    for _, pod, container in containers(manifests):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
            if "secret" in volume:
                keys = {item["key"] for item in volume["secret"].get("items", [])}
                assert keys <= NEEDED_SECRETS[volume["secret"]["secretName"]]


def test_secrets_come_as_files_that_are_mounted(manifests: list[Manifest]) -> None:
    for name, pod, container in containers(manifests):
        (secret,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
        keys = {item["key"] for item in secret.get("items", [])} or NEEDED_SECRETS[secret["secretName"]]
        for variable in container["env"]:
            if re.search("TOKEN|PASSWORD|DATABASE_URL", variable["name"]):
                assert variable["name"].endswith("_FILE"), name
                folder, _, key = variable["value"].rpartition("/")
                assert key in keys
                assert folder in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_the_documentation_says_how_each_secret_is_made() -> None:
    page = (ROOT / "docs" / "operating.md").read_text().split("\n## Kubernetes\n")[1].split("\n## ")[0]
    for name, keys in NEEDED_SECRETS.items():
        (command,) = re.findall(rf"secret generic {name} (.*)", page.replace("\\\n", " "))
        assert set(re.findall(r"--from-file=(\w+)=", command)) == keys


def test_variables_are_settings(manifests: list[Manifest]) -> None:
    documented = (ROOT / "docs" / "settings.md").read_text()
    known = {f"LAYERSWEEP_{name.upper()}" for name in Settings.model_fields}
    known |= set(re.findall(r"^\| `(LAYERSWEEP_\w+)`", documented, re.MULTILINE))
    for _, _, container in containers(manifests):
        names = {variable["name"].removesuffix("_FILE") for variable in container["env"]}
        assert {name for name in names if name.startswith("LAYERSWEEP_")} - known <= {"LAYERSWEEP_WORK_TOKEN"}


def test_selectors_find_pods_and_workers_reach_the_service(manifests: list[Manifest]) -> None:
    labels = [template["metadata"]["labels"] for template in pods(manifests).values()]
    selectors = [
        *(each["spec"]["selector"] for each in of_kind(manifests, "Service")),
        *(each["spec"]["selector"]["matchLabels"] for each in of_kind(manifests, "Deployment", "PodDisruptionBudget")),
        *(each["spec"]["podSelector"].get("matchLabels", {}) for each in of_kind(manifests, "NetworkPolicy")),
    ]
    assert all(any(selects(selector, each) for each in labels) for selector in selectors)
    (service,) = of_kind(manifests, "Service")
    found = [
        name for name, pod in pods(manifests).items() if selects(service["spec"]["selector"], pod["metadata"]["labels"])
    ]
    assert found == ["layersweep"]
    for name, _, container in containers(manifests):
        if name.startswith("worker"):
            address = {each["name"]: each.get("value") for each in container["env"]}["LAYERSWEEP_SERVER"]
            assert address == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"


def test_one_api_process_stays_while_nodes_are_drained(manifests: list[Manifest]) -> None:
    (service,) = [each for each in of_kind(manifests, "Deployment") if each["metadata"]["name"] == "layersweep"]
    (budget,) = of_kind(manifests, "PodDisruptionBudget")
    assert service["spec"]["replicas"] > budget["spec"]["minAvailable"] == 1


def test_images_are_those_of_the_dockerfile(manifests: list[Manifest]) -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    used = {
        container["image"].partition(":")[0].removeprefix("layersweep-") for _, _, container in containers(manifests)
    }
    assert used <= stages


def test_workers_are_scaled_by_the_queue_of_their_own_target_and_queued_by_kueue() -> None:
    manifests = built("autoscaled")
    workers = {
        each["metadata"]["name"]: each for each in of_kind(manifests, "Deployment") if "worker" in str(each["metadata"])
    }
    workers.pop("layersweep", None)
    queues = {each["metadata"]["name"] for each in of_kind(manifests, "LocalQueue")}
    scaled = {each["spec"]["scaleTargetRef"]["name"]: each for each in of_kind(manifests, "ScaledObject")}
    assert scaled.keys() == workers.keys() == {"worker-cpu", "worker-h100"}
    for name, worker in workers.items():
        assert "replicas" not in worker["spec"]
        assert worker["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] in queues
        (trigger,) = scaled[name]["spec"]["triggers"]
        assert "layersweep_queue_wanted_slots" in trigger["metadata"]["query"]
        (container,) = worker["spec"]["template"]["spec"]["containers"]
        own = [each["value"] for each in container["env"] if each["name"] == "LAYERSWEEP_LABELS"]
        assert all(label in trigger["metadata"]["query"] for label in own)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
def test_a_scaler_counts_what_its_workers_can_serve_once(tmp_path: Path) -> None:
    """Two API processes say the same; a sweep that has no target yet counts for every kind of worker."""
    scaled = of_kind(built("autoscaled"), "ScaledObject")
    queries = {each["metadata"]["name"]: each["spec"]["triggers"][0]["metadata"]["query"] for each in scaled}
    said = [
        ('runtime="tensorrt",device_model="NVIDIA H100 80GB HBM3",labels=""', 16),
        ('runtime="tensorrt",device_model="",labels="gpu=h100"', 1),
        ('runtime="tensorrt",device_model="NVIDIA L4",labels=""', 32),
        ('runtime="onnxruntime",device_model="AMD EPYC",labels=""', 3),
        ('runtime="",device_model="",labels=""', 1),
    ]
    series = [
        {"series": f'layersweep_queue_wanted_slots{{instance="{instance}",{labels}}}', "values": str(slots)}
        for instance in ("api1", "api2")
        for labels, slots in said
    ]
    wanted = {"worker-cpu": 4, "worker-h100": 17}
    cases = [
        {"expr": queries[name], "eval_time": "0s", "exp_samples": [{"labels": "{}", "value": value}]}
        for name, value in wanted.items()
    ]
    file = tmp_path / "scalers.yml"
    file.write_text(yaml.safe_dump({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": cases}]}))
    checked = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
