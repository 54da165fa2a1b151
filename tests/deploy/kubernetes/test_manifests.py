"""The manifests can be applied, and hold what docs/kubernetes.md promises; no cluster is asked."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deploy.plan import CHECKOUT
from shared.models import parse_models
from shared.settings import PREFIX, Settings
from tests.deploy.kubernetes.manifests import (
    BUILDS,
    FOLDER,
    Manifest,
    build,
    files,
    identity,
    of_kind,
    pods,
    read,
)
from tests.deploy.kubernetes.schemas import SCHEMAS
from worker.connections import PORTS

VERSIONS = ("1.30", "1.37")
"""Of Kubernetes: the oldest and the newest that the manifests are held against."""

FULL = build("overlays/full")
WORKLOADS = [pytest.param(*one, id=one[0]["metadata"]["name"]) for one in pods(FULL)]
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def validate(manifest: Manifest, version: str) -> None:
    own = SCHEMAS.get((manifest["apiVersion"], manifest["kind"]))
    if own is not None:
        jsonschema.validate(manifest, own)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


def labels_of(workload: Manifest) -> dict[str, str]:
    found: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return found


def selected(selector: dict[str, Any]) -> list[str]:
    """Names of the workloads whose pods a selector means."""
    wanted = selector.get("matchLabels", {})
    return [
        workload["metadata"]["name"]
        for workload, _ in pods(FULL)
        if wanted.items() <= labels_of(workload).items()
        and all(_holds(one, labels_of(workload)) for one in selector.get("matchExpressions", ()))
    ]


def _holds(expression: dict[str, Any], labels: dict[str, str]) -> bool:
    is_in = labels.get(expression["key"]) in expression["values"]
    return is_in if expression["operator"] == "In" else not is_in


def container_ports(name: str) -> dict[str, int]:
    (pod,) = [pod for workload, pod in pods(FULL) if workload["metadata"]["name"] == name]
    return {port["name"]: port["containerPort"] for one in pod["containers"] for port in one.get("ports", ())}


def environment(pod: Manifest) -> dict[str, str | None]:
    """The settings of a pod's container; None for what a secret or the cluster gives."""
    (settings,) = of_kind(FULL, "ConfigMap")
    (container,) = pod["containers"]
    given: dict[str, str | None] = dict(settings["data"]) if "envFrom" in container else {}
    return given | {one["name"]: one.get("value") for one in container.get("env", ())}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_file_is_what_its_schema_allows(path: Path, version: str) -> None:
    manifests = read(path)
    assert manifests
    for manifest in manifests:
        validate(manifest, version)


@pytest.mark.parametrize("name", BUILDS)
def test_every_build_is_what_its_schema_allows(name: str) -> None:
    manifests = build(name)
    assert len({identity(one) for one in manifests}) == len(manifests)
    for manifest in manifests:
        validate(manifest, VERSIONS[-1])


@pytest.mark.parametrize("name", BUILDS)
def test_kubectl_builds_the_same(name: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    built = subprocess.run([kubectl, "kustomize", str(FOLDER / name)], capture_output=True, check=True)

    theirs = {identity(one): one for one in yaml.safe_load_all(built.stdout)}

    assert theirs == {identity(one): one for one in build(name)}


def test_a_wrong_name_is_refused() -> None:
    """The measure itself: strict schemas know every name."""
    (worker, *_) = [one for one in FULL if identity(one) == ("apps/v1", "Deployment", "worker")]
    for path in (("spec",), ("spec", "template", "spec"), ("metadata",)):
        broken = json.loads(json.dumps(worker))
        place = broken
        for step in path:
            place = place[step]
        place["replica"] = 1
        with pytest.raises(kubernetes_validate.ValidationError):
            validate(broken, VERSIONS[-1])
    for scaled in of_kind(FULL, "ScaledObject"):
        broken = json.loads(json.dumps(scaled))
        broken["spec"]["triggers"][0]["metadata"]["targetValue"] = 2400
        with pytest.raises(jsonschema.ValidationError):
            validate(broken, VERSIONS[-1])


@pytest.mark.parametrize(("workload", "pod"), WORKLOADS)
def test_no_pod_may_more_than_it_needs(workload: Manifest, pod: Manifest) -> None:
    """What the level `restricted` of pod security asks for, and a root that nobody writes to."""
    assert pod["automountServiceAccountToken"] is False
    # FLOWER_PORT, REDIS_PORT and their like are set for every service of the namespace otherwise.
    assert pod["enableServiceLinks"] is False
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    assert all(not {"hostPath"} & set(volume) for volume in pod.get("volumes", ()))


@pytest.mark.parametrize(("workload", "pod"), WORKLOADS)
def test_every_container_is_watched_bounded_and_pinned(workload: Manifest, pod: Manifest) -> None:
    for container in pod["containers"]:
        assert set(PROBES) <= set(container)
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][kind])
        _, _, tag = container["image"].partition(":")
        assert tag.count(".") >= 2, f"{container['image']} is no release"
        # A part that is slow to start is given time by the startup probe, and by nothing else.
        startup = container["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 60
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod.get("volumes", ()) if "emptyDir" in volume)
    mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
    claimed = {one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", ())}
    assert mounted == {volume["name"] for volume in pod.get("volumes", ())} | claimed


@pytest.mark.parametrize(("workload", "pod"), WORKLOADS)
def test_settings_exist_and_are_taken(
    workload: Manifest, pod: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    ours = {name: value for name, value in environment(pod).items() if name.startswith(PREFIX)}
    assert set(ours) - known == set()
    for name, value in ours.items():
        if value is not None:
            monkeypatch.setenv(name, value)

    taken = Settings()

    grace_s = pod["terminationGracePeriodSeconds"]
    assert "ANANSE_MODELS" not in ours or grace_s > taken.stop_grace_s + 20


def test_the_worker_s_probe_is_in_its_image() -> None:
    script = Path(CHECKOUT, "deploy", "worker_is_healthy.sh")
    for _, pod in pods(FULL):
        for container in pod["containers"]:
            if container["image"].startswith("ananse-worker"):
                assert container["livenessProbe"]["exec"]["command"] == ["sh", "deploy/worker_is_healthy.sh"]
    assert script.exists()


@pytest.mark.parametrize(("workload", "pod"), WORKLOADS)
def test_secrets_are_named_as_in_the_example(workload: Manifest, pod: Manifest) -> None:
    (example,) = read(FOLDER / "base" / "secret.example.yaml")
    for container in pod["containers"]:
        for one in container.get("env", ()):
            if reference := one.get("valueFrom", {}).get("secretKeyRef"):
                assert reference["name"] == example["metadata"]["name"]
                assert reference["key"] in example["stringData"]
            else:
                # What is secret stands in no manifest.
                assert not any(word in one["name"] for word in ("SECRET", "PASSWORD", "AUTH", "REDIS_URL"))


def test_every_secret_setting_can_be_given() -> None:
    secrets = {
        PREFIX + name.upper()
        for name, field in Settings.model_fields.items()
        if "SecretStr" in str(field.annotation)
    }
    given = {name for _, pod in pods(FULL) for name, value in environment(pod).items() if value is None}
    assert secrets <= given


def test_selectors_mean_their_own_pods_and_no_others() -> None:
    for workload, _ in pods(FULL):
        assert selected(workload["spec"]["selector"]) == [workload["metadata"]["name"]]
    for budget in of_kind(FULL, "PodDisruptionBudget"):
        assert selected(budget["spec"]["selector"]) == [budget["metadata"]["name"]]
    assert {one["metadata"]["name"] for one in of_kind(FULL, "PodDisruptionBudget")} == {
        "api",
        "worker",
        "worker-gpu",
    }


def test_services_lead_to_ports_that_are_there() -> None:
    for service in of_kind(FULL, "Service"):
        (name,) = selected({"matchLabels": service["spec"]["selector"]})
        assert name == service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            assert container_ports(name)[port["targetPort"]] == port["port"]


def test_probes_ask_ports_that_are_there() -> None:
    for workload, pod in pods(FULL):
        ports = container_ports(workload["metadata"]["name"])
        for container in pod["containers"]:
            for probe in PROBES:
                if "httpGet" in container[probe]:
                    assert container[probe]["httpGet"]["port"] in ports


def test_monitors_look_where_there_are_figures() -> None:
    for kind, endpoints in (("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints")):
        for monitor in of_kind(FULL, kind):
            names = selected(monitor["spec"]["selector"])
            assert names
            for endpoint in monitor["spec"][endpoints]:
                assert all(endpoint["port"] in container_ports(name) for name in names)
    assert selected({"matchLabels": {"ananse/part": "worker"}}) == ["worker", "worker-gpu"]


def ways_in(name: str) -> list[tuple[str, int]]:
    """From whom, in words, and to which port this workload's pods may be spoken to."""
    found = []
    for policy in of_kind(FULL, "NetworkPolicy"):
        if name not in selected(policy["spec"]["podSelector"]):
            continue
        for rule in policy["spec"].get("ingress", ()):
            found += [(json.dumps(peer), port["port"]) for peer in rule["from"] for port in rule["ports"]]
    return found


def test_nobody_is_spoken_to_but_by_those_who_must() -> None:
    everybody = [
        policy["spec"]["policyTypes"]
        for policy in of_kind(FULL, "NetworkPolicy")
        if policy["spec"]["podSelector"] == {} and not {"ingress", "egress"} & set(policy["spec"])
    ]
    assert everybody == [["Ingress", "Egress"]]
    for worker in ("worker", "worker-gpu"):
        ((peer, port),) = ways_in(worker)
        assert "monitoring" in peer
        assert port == container_ports(worker)["metrics"]
    assert {port for _, port in ways_in("api")} == {container_ports("api")["http"]}
    assert {port for _, port in ways_in("redis")} == {container_ports("redis")["redis"]}
    (redis,) = [one for one in of_kind(FULL, "NetworkPolicy") if one["metadata"]["name"] == "redis"]
    peers = [name for peer in redis["spec"]["ingress"][0]["from"] for name in selected(peer["podSelector"])]
    assert sorted(peers) == ["api", "flower", "worker", "worker-gpu"]


def test_nobody_speaks_to_private_networks_or_to_the_cloud_s_own_address() -> None:
    reach = {
        policy["metadata"]["name"]: (peer["ipBlock"], {port["port"] for port in rule["ports"]})
        for policy in of_kind(FULL, "NetworkPolicy")
        for rule in policy["spec"].get("egress", ())
        for peer in rule["to"]
        if "ipBlock" in peer
    }
    for block, _ in reach.values():
        assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} <= set(block["except"])
    # Webhooks and recordings are promised over http and https: where the guarded client goes, the network
    # lets it.
    assert {name: ports for name, (_, ports) in reach.items()} == {"api": {443}, "worker": set(PORTS)}


def test_each_scaled_deployment_is_scaled_on_the_model_it_serves() -> None:
    workloads = {workload["metadata"]["name"]: pod for workload, pod in pods(FULL)}
    (settings,) = of_kind(FULL, "ConfigMap")
    offered = {one.name for one in parse_models(settings["data"]["ANANSE_MODELS"])}
    (api,) = [one for one in of_kind(FULL, "Service") if one["metadata"]["name"] == "api"]
    scaled = of_kind(FULL, "ScaledObject")
    assert {one["spec"]["scaleTargetRef"]["name"] for one in scaled} == {"worker", "worker-gpu"}
    for one in scaled:
        target = one["spec"]["scaleTargetRef"]["name"]
        served = [model.name for model in parse_models(str(environment(workloads[target])["ANANSE_MODELS"]))]
        (trigger,) = one["spec"]["triggers"]
        url = urlsplit(trigger["metadata"]["url"])
        assert parse_qs(url.query)["model"] == served
        assert set(served) <= offered
        assert (url.hostname, url.port) == ("api.ananse.svc", api["spec"]["ports"][0]["port"])
        # Else an apply would undo what was scaled.
        (workload,) = [w for w, _ in pods(FULL) if w["metadata"]["name"] == target]
        assert "replicas" not in workload["spec"]


def test_a_worker_on_a_card_has_one_and_waits_for_it() -> None:
    (worker,) = [pod for workload, pod in pods(FULL) if workload["metadata"]["name"] == "worker-gpu"]
    (container,) = worker["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert worker["nodeSelector"]
    assert worker["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_the_page_names_every_build_and_every_secret() -> None:
    page = Path(CHECKOUT, "docs", "kubernetes.md").read_text()
    (example,) = read(FOLDER / "base" / "secret.example.yaml")
    for name in (*BUILDS, *example["stringData"]):
        assert name in page
