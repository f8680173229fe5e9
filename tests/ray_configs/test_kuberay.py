"""The KubeRay files against KubeRay's fields and Kubernetes' own schemas: misspelt fields would be dropped silently."""

import copy
import inspect
import os
import shlex
import subprocess
from importlib import import_module
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from jobs.options.command_line import parse
from jobs.serve.application import Arguments

CONFIGS = Path(__file__).parents[2] / "ray_configs"
SCHEMA = yaml.safe_load((Path(__file__).parent / "kuberay-1.7.yaml").read_text())
KUBERNETES = "1.33"


def documents(name):
    return list(yaml.safe_load_all((CONFIGS / name).read_text()))


DOCUMENTS = {
    document["kind"]: document
    for name in ("kuberay-raycluster.yaml", "kuberay-rayjob.yaml", "kuberay-rayservice.yaml")
    for document in documents(name)
}
POLICIES = [documents(f"kuberay-{name}.yaml")[1] for name in ("raycluster", "rayjob", "rayservice")]
CLUSTERS = {
    "RayCluster": DOCUMENTS["RayCluster"]["spec"],
    "RayJob": DOCUMENTS["RayJob"]["spec"]["rayClusterSpec"],
    "RayService": DOCUMENTS["RayService"]["spec"]["rayClusterConfig"],
}
SERVE = yaml.safe_load(DOCUMENTS["RayService"]["spec"]["serveConfigV2"])


def templates():
    for kind, cluster in CLUSTERS.items():
        yield pytest.param(cluster["headGroupSpec"]["template"], id=f"{kind}-head")
        yield pytest.param(cluster["workerGroupSpecs"][0]["template"], id=f"{kind}-worker")
    yield pytest.param(DOCUMENTS["RayJob"]["spec"]["submitterPodTemplate"], id="submitter")


def refuse_unknown(template):
    pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": template}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("kind", CLUSTERS)
def test_kuberay_knows_every_field(kind):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(DOCUMENTS[kind], SCHEMA)


@pytest.mark.parametrize("template", templates())
def test_kubernetes_knows_every_field_of_the_pods(template):
    refuse_unknown(template)


@pytest.mark.parametrize("policy", POLICIES, ids=CLUSTERS)
def test_kubernetes_knows_every_field_of_the_policies(policy):
    kubernetes_validate.validate(policy, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (["spec"], "backofLimit"),
        (["spec", "rayClusterSpec"], "authOption"),
        (["spec", "rayClusterSpec", "workerGroupSpecs", 0], "minReplica"),
        (["spec", "deletionStrategy", "deletionRules", 0, "condition"], "ttlSecond"),
    ],
)
def test_a_misspelt_field_of_kuberay_is_refused(place, wrong):
    job = copy.deepcopy(DOCUMENTS["RayJob"])
    inner = job
    for step in place:
        inner = inner[step]
    inner[wrong] = 1
    with pytest.raises(jsonschema.ValidationError, match=wrong):
        jsonschema.validate(job, SCHEMA)


def test_a_misspelt_field_of_a_service_is_refused():
    service = copy.deepcopy(DOCUMENTS["RayService"])
    service["spec"]["serveConfig"] = service["spec"].pop("serveConfigV2")
    with pytest.raises(jsonschema.ValidationError, match="serveConfig"):
        jsonschema.validate(service, SCHEMA)


def test_serve_knows_every_field_and_resca_every_option_of_what_it_is_to_run():
    """Serve passes over fields that it does not know."""
    from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

    [application] = ServeDeploySchema.model_validate(SERVE).applications
    assert SERVE.keys() <= ServeDeploySchema.model_fields.keys()
    assert SERVE["applications"][0].keys() <= ServeApplicationSchema.model_fields.keys()
    module, _, builder = application.import_path.partition(":")
    assert inspect.isfunction(getattr(import_module(module), builder))
    options = parse(["serve", *shlex.split(Arguments.model_validate(application.args).options)])
    assert options.out == "/shared/videos" and options.token_file is None


def test_the_door_listens_on_the_port_that_the_head_shows_and_has_its_token_from_a_secret():
    [head] = CLUSTERS["RayService"]["headGroupSpec"]["template"]["spec"]["containers"]
    [worker] = CLUSTERS["RayService"]["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert {"containerPort": SERVE["http_options"]["port"], "name": "serve"} in head["ports"]
    assert {"secretRef": {"name": "resca-door"}} in head["envFrom"]
    assert {"secretRef": {"name": "resca-door"}} not in worker["envFrom"]


def test_a_misspelt_field_of_a_pod_is_refused():
    template = copy.deepcopy(CLUSTERS["RayCluster"]["workerGroupSpecs"][0]["template"])
    template["spec"]["containers"][0]["lifecycle"]["prestop"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="prestop"):
        refuse_unknown(template)


def test_rules_of_deletion_exclude_the_older_way_of_shutting_down():
    job = copy.deepcopy(DOCUMENTS["RayJob"])
    job["spec"]["shutdownAfterJobFinishes"] = True
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, SCHEMA)


@pytest.mark.parametrize("kind", CLUSTERS)
def test_the_token_is_asked_for_and_no_secret_is_in_a_runtime_environment(kind):
    assert CLUSTERS[kind]["authOptions"] == {"mode": "token"}
    assert "runtimeEnvYAML" not in DOCUMENTS[kind]["spec"]


@pytest.mark.parametrize(("code", "told"), [(0, 0), (2, 0), (3, 0), (33, 33), (143, 143)])
def test_kuberay_hears_only_of_failures_that_a_repetition_may_mend(tmp_path, code, told):
    """Two shells read the entrypoint: the submitter's, and the head's what `ray job submit` has quoted anew."""
    (tmp_path / "resca").write_text(f"#!/bin/sh\nexit {code}\n")
    (tmp_path / "resca").chmod(0o755)
    entrypoint = shlex.join(shlex.split(DOCUMENTS["RayJob"]["spec"]["entrypoint"]))
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(entrypoint, shell=True, env=environment).returncode == told


def test_the_dashboard_is_on_loopback_but_where_the_operator_must_reach_it():
    assert CLUSTERS["RayCluster"]["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    assert not {"NodePort", "LoadBalancer"} & {c["headGroupSpec"].get("serviceType") for c in CLUSTERS.values()}


@pytest.mark.parametrize(("kind", "policy"), zip(CLUSTERS, POLICIES, strict=True))
def test_the_policy_covers_every_pod_and_names_ports_that_they_have(kind, policy):
    pods = [CLUSTERS[kind]["headGroupSpec"]["template"], CLUSTERS[kind]["workerGroupSpecs"][0]["template"]]
    assert [pod["metadata"]["labels"] for pod in pods] == [policy["spec"]["podSelector"]["matchLabels"]] * 2
    ports = {port["name"] for pod in pods for port in pod["spec"]["containers"][0]["ports"]}
    assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule.get("ports", [])} <= ports


@pytest.mark.parametrize("kind", CLUSTERS)
def test_workers_have_eight_gpus_shared_memory_and_time_to_finish_a_video(kind):
    pod = CLUSTERS[kind]["workerGroupSpecs"][0]["template"]["spec"]
    [container] = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    assert "persistentVolumeClaim" in mounts["/shared"]
    assert (
        pod["terminationGracePeriodSeconds"] > 600 and "600" in container["lifecycle"]["preStop"]["exec"]["command"][2]
    )
