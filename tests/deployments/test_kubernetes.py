"""deployments/kubernetes, as far as it can be held to the truth without a cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import prefect.server.api
import pytest
from prefect.utilities.templating import apply_values
from ruamel.yaml import YAML

from tasks import settings
from tasks.warehouse import database

FOLDER = Path(__file__).parents[2] / "deployments" / "kubernetes"
README = (FOLDER / "README.md").read_text()
TEMPLATE = json.loads((FOLDER / "job-template.json").read_text())
KUBERNETES = "1.33"  # the schemas' version
WORD = re.compile(r"\{\{ (\w+) \}\}")


@cache
def documents() -> tuple[dict[str, Any], ...]:
    files = sorted(FOLDER.glob("*.yaml"))
    return tuple(one for file in files for one in YAML(typ="safe").load_all(file))


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = (
        one for one in documents() if one["kind"] == kind and one["metadata"]["name"] == name
    )
    return found


@cache
def job() -> dict[str, Any]:
    """A run's Job, as the worker makes it of the template: the defaults and its own values."""
    properties = TEMPLATE["variables"]["properties"]
    values = {name: one["default"] for name, one in properties.items() if "default" in one}
    values |= {
        "name": "scan-share",
        "command": ["prefect", "flow-run", "execute"],
        "env": [{"name": "PREFECT__FLOW_RUN_ID", "value": "1"}],
        "labels": {"prefect.io/flow-run-id": "1"},
    }
    made = apply_values(TEMPLATE["job_configuration"]["job_manifest"], values)
    assert isinstance(made, dict)
    return made


def pods() -> Iterator[dict[str, Any]]:
    yield named("Deployment", "suture-worker")["spec"]["template"]["spec"]
    yield job()["spec"]["template"]["spec"]


def values_in(tree: Any, key: str) -> Iterator[Any]:
    """Every value that stands under ``key``, at any depth."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield value
            yield from values_in(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from values_in(value, key)


def test_every_object_is_what_kubernetes_knows() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for one in (*documents(), job()):
        kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_pods_have_no_more_rights_than_they_need() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
        mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert job()["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    assert not any(one["kind"].startswith("Cluster") for one in documents())
    for rule in named("Role", "suture-worker")["rules"]:
        assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
        assert "secrets" not in rule["resources"]


def test_no_secret_stands_in_a_file() -> None:
    assert not [one for one in documents() if one["kind"] == "Secret"]
    given = {
        *named("ConfigMap", "suture")["data"],
        *(
            one["name"]
            for env in values_in([*documents()], "env")
            for one in env
            if "value" in one and not one["name"].endswith(("_SECRET_NAME", "_SECRET_KEY"))
        ),
    }
    secret = re.compile("WAREHOUSE_URL|SECRET|PASSWORD|AUTH_STRING|API_KEY|ACCESS_KEY|TOKEN|SEED")
    assert not [name for name in given if secret.search(name)]
    text = "".join(file.read_text() for file in FOLDER.iterdir())
    assert not re.search(r"://[^/\s]*:[^/\s]*@", text)


def test_every_name_leads_somewhere() -> None:
    documented = set(re.findall(r"^\| `(suture[\w-]*)` \| (?:`(\w+)`)?", README, re.MULTILINE))
    secrets = {name for name, _ in documented}
    data = named("ConfigMap", "suture")["data"]
    made = set(re.findall(r"create configmap ([\w-]+)", README))
    everything = [*documents(), job()]
    for reference in values_in(everything, "configMapKeyRef"):
        assert (reference["name"], reference["key"] in data) == ("suture", True)
    for reference in values_in(everything, "secretKeyRef"):
        assert (reference["name"], reference["key"]) in documented
    for reference in values_in(everything, "configMapRef"):
        assert named("ConfigMap", reference["name"])
    for reference in values_in(everything, "secretRef"):
        assert reference["name"] in secrets
        assert f"create secret generic {reference['name']} " in README
    for reference in values_in(everything, "configMap"):
        assert reference["name"] in made
    for name in values_in(everything, "serviceAccountName"):
        assert named("ServiceAccount", name)
    namespaces = {one["metadata"].get("namespace", "suture") for one in (*documents(), job())}
    assert namespaces == {"suture"}
    for file in re.findall(r"^\| `([\w.-]+\.(?:yaml|json))`", README, re.MULTILINE):
        assert (FOLDER / file).is_file()


def test_the_files_that_the_settings_name_are_mounted() -> None:
    data = named("ConfigMap", "suture")["data"]
    mounts = job()["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    for name in ("SUTURE_INVENTORY", "SUTURE_POLICIES"):
        folder, _, file = data[name].rpartition("/")
        assert folder in {mount["mountPath"] for mount in mounts}
        assert f"--from-file={file}" in README


def test_suture_reads_the_settings_as_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    data = named("ConfigMap", "suture")["data"]
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    cores = int(TEMPLATE["variables"]["properties"]["cpu_limit"]["default"])
    assert settings.scan_processes() == cores
    assert settings.task_runner() == "threads"
    assert settings.ui_url() == data["SUTURE_UI_URL"]
    read = Path(settings.__file__).read_text() + Path(database.__file__).read_text()
    for name in (*data, *re.findall(r"`(SUTURE_WAREHOUSE_URL)`", README)):
        assert name in read or not name.startswith("SUTURE_")


def test_the_pool_and_the_deployments_are_those_of_prefect_yaml() -> None:
    deployed = YAML(typ="safe").load(FOLDER.parents[1] / "prefect.yaml")["deployments"]
    (pool,) = {one["work_pool"]["name"] for one in deployed}
    assert "scan-share" in {one["name"] for one in deployed}
    args = named("Deployment", "suture-worker")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[args.index("--pool") + 1] == pool
    assert f"prefect work-pool create {pool} --type kubernetes" in README


def test_the_template_is_one_that_prefects_worker_fills_in() -> None:
    """Every variable is one of Prefect's own template for this kind of worker, and is used."""
    path = Path(prefect.server.api.__file__).parent / "collections_data" / "views"
    views = json.loads((path / "aggregate-worker-metadata.json").read_text())
    own = views["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]
    variables = TEMPLATE["variables"]["properties"]
    assert variables.keys() <= own["variables"]["properties"].keys()
    assert set(WORD.findall(json.dumps(TEMPLATE["job_configuration"]))) == variables.keys()
    unset = own["job_configuration"].keys() - TEMPLATE["job_configuration"].keys()
    assert unset == {"cluster_config"}  # it runs in the cluster that it makes Jobs in
    manifest = TEMPLATE["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    assert manifest["containers"][0]["args"] == "{{ command }}"
    assert manifest["containers"][0]["env"] == "{{ env }}"
