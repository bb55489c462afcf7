"""The manifests against Kubernetes' own schemas, JobSet's and SkyPilot's fields, and this project's settings."""

from typing import Any

import kubernetes_validate
import pytest
import yaml

from jaxlm.config import Config
from jaxlm.config_checks import validate
from jaxlm.flags import parse, preset
from tests.launch.conftest import ROOT

MANIFESTS = ["gke_tpu.yaml", "gke_gpu.yaml"]
# Fields of jobset.x-k8s.io/v1alpha2 (kubernetes-sigs/jobset, api/jobset/v1alpha2/jobset_types.go), by Go type.
JOBSET = {
    "JobSetSpec": {
        *("replicatedJobs", "network", "successPolicy", "failurePolicy", "startupPolicy", "suspend", "coordinator"),
        *("managedBy", "ttlSecondsAfterFinished", "volumeClaimPolicies"),
    },
    "Network": {"enableDNSHostnames", "subdomain", "publishNotReadyAddresses"},
    "FailurePolicy": {"maxRestarts", "restartStrategy", "rules"},
    "FailurePolicyRule": {
        *("name", "action", "onJobFailureReasons", "onJobFailureMessagePatterns", "targetReplicatedJobs"),
    },
    "ReplicatedJob": {"name", "groupName", "template", "replicas", "dependsOn"},
}
ACTIONS = {
    "FailJobSet",
    "RestartJobSet",
    "RestartJobSetAndIgnoreMaxRestarts",
    "RestartJob",
    "RestartJobAndIgnoreMaxRestarts",
}


def load(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The service account and the JobSet."""
    account, jobset = yaml.safe_load_all((ROOT / "launch" / name).read_text())
    return account, jobset


def job_of(name: str) -> dict[str, Any]:
    """The one Job template of a manifest."""
    (replicated,) = load(name)[1]["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


def container_of(name: str) -> dict[str, Any]:
    (container,) = job_of(name)["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize("name", MANIFESTS)
def test_jobs_and_accounts_fit_kubernetes_schemas(name: str) -> None:
    account, _ = load(name)
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": job_of(name)}
    kubernetes_validate.validate(account, "1.33", strict=True)
    kubernetes_validate.validate(job, "1.33", strict=True)
    del job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, "1.33", strict=True)


@pytest.mark.parametrize("name", MANIFESTS)
def test_jobsets_have_the_fields_that_jobset_knows(name: str) -> None:
    account, jobset = load(name)
    spec = jobset["spec"]
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert set(spec) <= JOBSET["JobSetSpec"]
    assert set(spec.get("network", ())) <= JOBSET["Network"]
    assert set(spec["failurePolicy"]) <= JOBSET["FailurePolicy"]
    for rule in spec["failurePolicy"]["rules"]:
        assert {"name", "action"} <= set(rule) <= JOBSET["FailurePolicyRule"]
        assert rule["action"] in ACTIONS
    for replicated in spec["replicatedJobs"]:
        assert {"name", "template"} <= set(replicated) <= JOBSET["ReplicatedJob"]
    assert job_of(name)["template"]["spec"]["serviceAccountName"] == account["metadata"]["name"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_preemption_starts_all_processes_again_without_being_counted(name: str) -> None:
    """Exit code 75 or a lost node fails the Job with reason PodFailurePolicy, all else with BackoffLimitExceeded."""
    policy, job = load(name)[1]["spec"]["failurePolicy"], job_of(name)
    (rule,) = policy["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert policy["maxRestarts"] == 10
    saved, lost = job["podFailurePolicy"]["rules"]
    codes = {"containerName": container_of(name)["name"], "operator": "In", "values": [75]}
    assert saved == {"action": "FailJob", "onExitCodes": codes}
    assert lost == {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy is for such pods only
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_what_is_run_is_a_verb_with_valid_settings(name: str) -> None:
    verb, path, *flags = container_of(name)["args"]
    assert verb == "train"
    config = parse(Config, flags, "train", preset(str(ROOT / path)))
    validate(config)
    mounts = {mount["name"]: mount["mountPath"] for mount in container_of(name)["volumeMounts"]}
    assert str(config.workdir).startswith(f"{mounts['bucket']}/runs/")


@pytest.mark.parametrize("name", MANIFESTS)
def test_tokens_come_from_a_secret_and_the_bucket_from_its_driver(name: str) -> None:
    pod = job_of(name)["template"]
    environment = {item["name"]: item for item in container_of(name)["env"]}
    assert "value" not in environment["HF_TOKEN"]
    assert environment["HF_TOKEN"]["valueFrom"]["secretKeyRef"]["optional"]
    assert environment["JAXLM_SHARED"]["value"] == "/mnt/jaxlm"
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["bucket"]["csi"]["driver"] == "gcsfuse.csi.storage.gke.io"
    assert pod["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}


def test_gpu_pods_are_told_who_is_who() -> None:
    jobset, job = load("gke_gpu.yaml")[1], job_of("gke_gpu.yaml")
    environment = {item["name"]: item for item in container_of("gke_gpu.yaml")["env"]}
    network, (replicated,) = jobset["spec"]["network"], jobset["spec"]["replicatedJobs"]
    first_pod = f"{jobset['metadata']['name']}-{replicated['name']}-0-0.{network['subdomain']}"
    assert environment["JAXLM_COORDINATOR"]["value"] == f"{first_pod}:8476"
    assert environment["JAXLM_NUM_PROCESSES"]["value"] == str(job["completions"])
    field = environment["JAXLM_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert container_of("gke_gpu.yaml")["resources"]["limits"] == {"nvidia.com/gpu": 8}


def test_tpu_pods_fill_their_slice() -> None:
    job, pod = job_of("gke_tpu.yaml"), job_of("gke_tpu.yaml")["template"]["spec"]
    selector = pod["nodeSelector"]
    chips = 1
    for side in selector["cloud.google.com/gke-tpu-topology"].split("x"):
        chips *= int(side)
    assert chips == job["completions"] * container_of("gke_tpu.yaml")["resources"]["limits"]["google.com/tpu"]
    assert selector["cloud.google.com/gke-tpu-accelerator"].startswith("tpu-")
    annotations = load("gke_tpu.yaml")[1]["metadata"]["annotations"]
    assert annotations["alpha.jobset.sigs.k8s.io/exclusive-topology"] == "cloud.google.com/gke-nodepool"


def test_the_task_of_skypilot() -> None:
    """Fields as in SkyPilot's sky/utils/schemas.py (get_task_schema, get_resources_schema)."""
    task = yaml.safe_load((ROOT / "launch" / "sky.yaml").read_text())
    assert set(task) <= {
        *("name", "workdir", "num_nodes", "resources", "file_mounts", "setup", "run", "envs", "secrets"),
        *("service", "config", "volumes"),
    }
    assert set(task["resources"]) <= {
        "accelerators",
        "use_spot",
        "job_recovery",
        "infra",
        "cpus",
        "memory",
        "disk_size",
    }
    assert task["resources"]["job_recovery"] == {"max_restarts_on_errors": 3, "recover_on_exit_codes": [75]}
    assert task["file_mounts"] == {task["envs"]["JAXLM_SHARED"]: {"source": "${BUCKET}", "mode": "MOUNT"}}
    assert task["secrets"] == {"HF_TOKEN": ""}
    assert task["run"].strip() == 'exec ./launch/local.sh $ARGS --workdir "$JAXLM_SHARED/runs/$RUN"'


def test_the_image_has_what_the_launchers_send() -> None:
    """The Dockerfile copies what `pack` of env.sh packs."""
    lines = (ROOT / "launch" / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    packed = (ROOT / "launch" / "env.sh").read_text().split("--exclude=__pycache__ \\\n")[1].splitlines()[0].split()
    assert copied == set(packed)
    assert 'ENTRYPOINT ["./launch/local.sh"]' in lines  # exec form: no shell stands between the pod's SIGTERM and it
