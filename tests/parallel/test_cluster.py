"""What launchers' environments say, whole and in part. Those of SLURM are those that SLURM 22.05 gave on two nodes."""

import os
import types
from pathlib import Path

import pytest

from jaxlm.errors import UserError
from jaxlm.parallel import cluster
from jaxlm.parallel.cluster import Cluster, find_cluster

OWN = {"JAXLM_COORDINATOR": "10.0.0.1:8476", "JAXLM_NUM_PROCESSES": "4", "JAXLM_PROCESS_ID": "3"}
SKYPILOT = {
    "SKYPILOT_NODE_IPS": "10.1.0.5\n10.1.0.6",
    "SKYPILOT_NODE_RANK": "1",
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NUM_GPUS_PER_NODE": "8",
}
# srun -N2 -n4 --ntasks-per-node=2 --gpus-per-node=2, the last task
SRUN = {
    "SLURM_JOB_ID": "10",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_NODELIST": "n[1-2]",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_GPUS_ON_NODE": "2",
    "CUDA_VISIBLE_DEVICES": "0,1",
}
# The shell of salloc -N2 -n4 where LaunchParameters has use_interactive_step: a step of its own, of one task.
INTERACTIVE = SRUN | {
    "SLURM_NODEID": "0",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_ID": "4294967290",
    "SLURM_STEP_NODELIST": "n1",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_NUM_TASKS": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1",
}
BATCH = {name: value for name, value in SRUN.items() if "STEP" not in name} | {
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
SALLOC = {name: SRUN[name] for name in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_NTASKS", "SLURM_TASKS_PER_NODE")}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """An environment of nothing but what a test sets, on a machine with NVIDIA's plugin for jax and no TPU."""
    launchers = ("JAX_COORD", "JAX_LOCAL", "JAXLM_", "SKYPILOT", "SLURM", "OMPI", "KUBERNETES", "JOB_", "TPU_", "CUDA_")
    for name in list(os.environ):
        if name.startswith(launchers):
            monkeypatch.delenv(name)
    monkeypatch.setattr(cluster, "_uses_gpus", lambda: True)
    return types.SimpleNamespace(
        set=lambda values: [monkeypatch.setenv(name, value) for name, value in values.items()],
        replace=lambda name, value: monkeypatch.setattr(cluster, name, value),
    )


def test_our_own_variables_come_first(environment: types.SimpleNamespace) -> None:
    environment.set(SRUN | OWN)
    expected = Cluster("JAXLM_* variables", "10.0.0.1:8476", 4, 3)
    assert find_cluster("auto") == find_cluster("explicit") == expected
    assert find_cluster("off").processes == 1
    environment.set({"JAXLM_NUM_PROCESSES": "1", "JAXLM_PROCESS_ID": "0"})
    assert find_cluster("auto").processes == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"JAXLM_COORDINATOR": ""}, "JAXLM_COORDINATOR must be set too"),
        ({"JAXLM_NUM_PROCESSES": "", "JAXLM_PROCESS_ID": ""}, "JAXLM_NUM_PROCESSES and JAXLM_PROCESS_ID must be set"),
        ({"JAXLM_COORDINATOR": "10.0.0.1"}, "HOST:PORT is meant"),
        ({"JAXLM_COORDINATOR": ":8476"}, "HOST:PORT is meant"),
        ({"JAXLM_COORDINATOR": "host:http"}, "HOST:PORT is meant"),
        ({"JAXLM_COORDINATOR": "host:70000"}, "HOST:PORT is meant"),
        ({"JAXLM_NUM_PROCESSES": "four"}, "JAXLM_NUM_PROCESSES is 'four'; it must be a number, at least 1"),
        ({"JAXLM_NUM_PROCESSES": "0"}, "JAXLM_NUM_PROCESSES is '0'"),
        ({"JAXLM_PROCESS_ID": "-1"}, "JAXLM_PROCESS_ID is '-1'"),
        ({"JAXLM_PROCESS_ID": "4"}, "JAXLM_PROCESS_ID is 4; with 4 processes it must be 0 to 3"),
    ],
)
def test_wrong_variables_of_our_own_are_told(
    environment: types.SimpleNamespace, values: dict[str, str], message: str
) -> None:
    environment.set(OWN | values)
    for mode in ("auto", "explicit"):
        with pytest.raises(UserError) as error:
            find_cluster(mode)
        assert message in str(error.value)


def test_explicit_insists_on_the_variables_and_auto_is_one_process_without_any(
    environment: types.SimpleNamespace,
) -> None:
    with pytest.raises(UserError, match=r"--mesh\.distributed explicit needs JAXLM_COORDINATOR, JAXLM_NUM_PROCESSES"):
        find_cluster("explicit")
    assert find_cluster("auto") == Cluster("one process")


def test_skypilot(environment: types.SimpleNamespace) -> None:
    environment.set(SKYPILOT)
    assert find_cluster("auto") == Cluster("SkyPilot", "10.1.0.5:8476", 2, 1)
    environment.set({"SKYPILOT_NUM_NODES": "3"})
    with pytest.raises(UserError, match="2 SKYPILOT_NODE_IPS, SKYPILOT_NUM_NODES 3"):
        find_cluster("auto")


def test_slurm_gives_a_task_its_gpu(environment: types.SimpleNamespace) -> None:
    environment.set(SRUN)
    assert find_cluster("auto") == Cluster("SLURM job 10.2", f"n1:{61440 + 10 + 2 * 17}", 4, 3, (1,))
    environment.set({"CUDA_VISIBLE_DEVICES": "1"})  # --gpus-per-task=1
    assert find_cluster("auto").local_devices is None
    environment.set({"JAX_COORDINATOR_PORT": "1234"})
    assert find_cluster("auto").coordinator == "n1:1234"


@pytest.mark.parametrize("values", [INTERACTIVE, BATCH, SALLOC])
def test_a_shell_in_an_allocation_is_one_process(environment: types.SimpleNamespace, values: dict[str, str]) -> None:
    environment.set(values)
    found = find_cluster("auto")
    assert (found.processes, found.process) == (1, 0)
    assert found.source.startswith("SLURM job 10, ")


def test_open_mpi(environment: types.SimpleNamespace) -> None:
    environment.set(OPEN_MPI | {"CUDA_VISIBLE_DEVICES": "0,1"})
    found = find_cluster("auto")
    assert (found.processes, found.process, found.local_devices) == (4, 2, (0,))
    assert found.coordinator.startswith("10.96.0.1:")


def test_an_open_mpi_that_hides_its_first_process_is_told(
    environment: types.SimpleNamespace,
) -> None:
    environment.set({name: value for name, value in OPEN_MPI.items() if "uri" not in name})
    with pytest.raises(UserError, match=r"set JAXLM_COORDINATOR, and JAXLM_NUM_PROCESSES=\$OMPI_COMM_WORLD_SIZE"):
        find_cluster("auto")


@pytest.mark.parametrize(
    ("tasks", "place", "visible", "on_node", "expected"),
    [
        (1, 0, None, None, None),  # no GPU anywhere
        (4, 2, "", 4, None),
        (4, 2, "NoDevFiles", None, None),
        (8, 5, "0,1,2,3,4,5,6,7", 8, (5,)),
        (8, 5, "0,1,2,3,4,5,6,7", None, (5,)),
        (8, 5, "5", 8, None),  # each sees its own
        (8, 5, "5", None, None),
        (1, 0, "0,1,2,3,4,5,6,7", 8, None),  # one process with all
        (2, 1, "4,5,6,7", 8, None),  # half of them each
        (8, 5, None, 8, (5,)),
        (2, 1, "0,1,2,3,4,5,6,7", 8, "6 of 8 GPUs of this node would be idle with 2 process(es)"),
        (2, 1, "0,1,2,3,4,5,6,7", None, "6 of 8 GPUs of this node would be idle"),
        (1, 0, "0,1", 8, "6 of 8 GPUs of this node would be idle with 1 process(es)"),
        (4, 1, "1", 8, "4 of 8 GPUs of this node would be idle"),
        (8, 5, "0,1,2,3", 4, "8 processes for 4 GPUs"),
        (2, 1, "0", 1, "2 processes for 1 GPUs"),
    ],
)
def test_no_gpu_is_idle(
    environment: types.SimpleNamespace, tasks: int, place: int, visible: str | None, on_node: int | None,
    expected: tuple[int, ...] | str | None,
) -> None:  # fmt: skip
    if visible is not None:
        environment.set({"CUDA_VISIBLE_DEVICES": visible})
    if isinstance(expected, str):
        with pytest.raises(UserError) as error:
            cluster.own_gpus(tasks, place, on_node, "start more")
        assert str(error.value).startswith(expected)
        assert str(error.value).endswith("start more")
        environment.set({"JAX_LOCAL_DEVICE_IDS": "0"})  # who says so knows
        assert cluster.own_gpus(tasks, place, on_node, "start more") is None
    else:
        assert cluster.own_gpus(tasks, place, on_node, "start more") == expected


def test_a_tpu_slice_is_found_by_jax_and_one_host_of_it_alone_is_one_process(
    environment: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jax._src.clusters import cloud_tpu_cluster

    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    environment.set({"TPU_WORKER_HOSTNAMES": "localhost,t1,t2,t3", "TPU_WORKER_ID": "2", "TPU_SKIP_MDS_QUERY": "1"})
    monkeypatch.setattr(cloud_tpu_cluster, "get_tpu_env_value_from_metadata", lambda key: None)
    assert find_cluster("auto") == Cluster("TPU on GKE", "localhost:8482", 4, 2)
    environment.set({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"})
    environment.set({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"})  # as in any JobSet
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    assert find_cluster("auto") == Cluster("TPU on GKE, one host")
    environment.set({"TPU_WORKER_ID": "zero", "TPU_WORKER_HOSTNAMES": "t0,t1"})
    with pytest.raises(UserError, match=r"TPU on GKE: JAX could not find out its hosts: .*--mesh\.distributed off"):
        find_cluster("auto")


def test_a_pod_is_asked_for_others_only_in_an_indexed_job(
    environment: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.set({"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert find_cluster("auto").processes == 1
    environment.set({"JOB_COMPLETION_INDEX": "1"})
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"indexed Job, and to find the others JAX needs `jax\[k8s\]`: set JAXLM_"):
        find_cluster("auto")

    from jax._src.clusters import K8sCluster

    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: Path())
    answers = {
        "is_env_present": lambda: True,
        "get_process_count": lambda: 2,
        "get_coordinator_address": lambda timeout, port: "job-0.sub:55527",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(K8sCluster, name, answer)
    assert find_cluster("auto") == Cluster("Kubernetes Job", "job-0.sub:55527", 2, 1)


@pytest.mark.parametrize(
    ("files", "is_tpu"),
    [
        ({"dev/accel0": ""}, True),
        ({"dev/accel/accel0": "", "dev/vfio/0": ""}, False),  # a neural processor of a laptop, and a device in use
        ({"sys/bus/pci/devices/0/vendor": "0x1ae0\n", "sys/bus/pci/devices/0/device": "0x0063\n"}, True),
        ({"sys/bus/pci/devices/0/vendor": "0x1ae0\n", "sys/bus/pci/devices/0/device": "0x0042\n"}, False),
        ({"sys/bus/pci/devices/0/vendor": "0x8086\n", "sys/bus/pci/devices/0/device": "0x0063\n"}, False),
        ({"sys/bus/pci/devices/0/power": ""}, False),
    ],
)
def test_a_tpu_is_known_by_its_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], is_tpu: bool
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(cluster, "_ROOT", tmp_path)
    assert cluster.has_tpu() == is_tpu
