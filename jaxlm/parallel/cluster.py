"""Which processes a run consists of, as its launcher tells them by their environment. Imports jax only where JAX asks
the network (TPU, Kubernetes)."""

import contextlib
import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

from jaxlm.errors import UserError

_ROOT = Path("/")
_TPUS = [["0x1ae0", device] for device in ("0x005e", "0x0062", "0x0063", "0x006f", "0x0076")]  # v4 to v7x
OWN = ("JAXLM_COORDINATOR", "JAXLM_NUM_PROCESSES", "JAXLM_PROCESS_ID")
PORT = 8476  # where a launcher names hosts and no port
WAIT_S = 300  # how long processes wait for one another at the start, as in jax.distributed.initialize


class Cluster(NamedTuple):
    """The processes of a run, seen from one of them."""

    source: str  # who says so, for messages
    coordinator: str = ""  # HOST:PORT of process 0
    processes: int = 1
    process: int = 0
    local_devices: tuple[int, ...] | None = None  # of the GPUs that this process sees, those that it is to use; all


def find_cluster(mode: str) -> Cluster:
    """The run's processes; a single one where nothing in the environment tells of more.

    A launcher's variables count only where they are whole, and where they are those of this process's own launch: a
    shell within an allocation, or on a node of one, has a part of them, and what is started there is one process.

    Args:
      mode: `--mesh.distributed`: "auto", "off" or "explicit".

    Raises:
      UserError: variables are missing or contradict one another, or GPUs would be idle.
    """
    if mode == "off":
        return Cluster("--mesh.distributed off")
    remark = "one process"
    for look in (_explicit, _skypilot, _open_mpi, _slurm, _tpu, _kubernetes):
        found = look()
        if mode == "explicit" and found is None:
            raise UserError(f"--mesh.distributed explicit needs {', '.join(OWN)} in the environment of each process")
        if found is not None and (found.processes > 1 or look in (_explicit, _tpu)):
            return found
        if found is not None and found.source:
            remark = found.source
    return Cluster(remark)


def _number(name: str, least: int = 0) -> int:
    text = os.environ[name]
    if not text.strip().isdigit() or int(text) < least:
        raise UserError(f"{name} is '{text}'; it must be a number, at least {least}")
    return int(text)


def _explicit() -> Cluster | None:
    missing = [name for name in OWN if not os.environ.get(name)]
    if len(missing) == len(OWN):
        return None
    if missing:
        raise UserError(f"{' and '.join(missing)} must be set too: {', '.join(OWN)} go together")
    coordinator, processes, process = os.environ[OWN[0]], _number(OWN[1], 1), _number(OWN[2])
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"{OWN[0]} is '{coordinator}'; HOST:PORT is meant, such as 10.0.0.1:{PORT}")
    if process >= processes:
        raise UserError(f"{OWN[2]} is {process}; with {processes} processes it must be 0 to {processes - 1}")
    return Cluster("JAXLM_* variables", coordinator, processes, process)


def _skypilot() -> Cluster | None:
    """https://docs.skypilot.co/en/latest/running-jobs/environment-variables.html"""
    names = ("SKYPILOT_NODE_IPS", "SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES")
    if not all(os.environ.get(name) for name in names):
        return None
    hosts, process, processes = os.environ[names[0]].split(), _number(names[1]), _number(names[2], 1)
    if len(hosts) != processes or process >= processes:
        raise UserError(
            f"SkyPilot's variables contradict one another: {len(hosts)} SKYPILOT_NODE_IPS, SKYPILOT_NUM_NODES "
            f"{processes}, SKYPILOT_NODE_RANK {process}"
        )
    return Cluster("SkyPilot", f"{hosts[0]}:{PORT}", processes, process)


def _open_mpi() -> Cluster | None:
    if "OMPI_COMM_WORLD_SIZE" not in os.environ or _number("OMPI_COMM_WORLD_SIZE", 1) == 1:
        return None
    from jax._src.clusters import OmpiCluster

    if not any(name.endswith("hnp_uri") for name in os.environ):  # Open MPI 5 has none; newer jax asks mpi4py then
        raise UserError(
            "this Open MPI does not tell its processes where the first one is; set JAXLM_COORDINATOR, and "
            "JAXLM_NUM_PROCESSES=$OMPI_COMM_WORLD_SIZE JAXLM_PROCESS_ID=$OMPI_COMM_WORLD_RANK in each"
        )
    tasks, place = _number("OMPI_COMM_WORLD_LOCAL_SIZE", 1), _number("OMPI_COMM_WORLD_LOCAL_RANK")
    return Cluster(
        "Open MPI",
        OmpiCluster.get_coordinator_address(None, os.environ.get("JAX_COORDINATOR_PORT")),
        OmpiCluster.get_process_count(),
        OmpiCluster.get_process_id(),
        own_gpus(tasks, place, None, "start one process a GPU (mpirun --npernode)"),
    )


_SLURM_STEP = ("SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")


def _slurm() -> Cluster | None:
    """Tasks of `srun`.

    SLURM_NTASKS may be that of the whole job: the shell of an allocation made with use_interactive_step is a step of
    one task that sees the job's count, and JAX's own detection would wait there for tasks that nobody started.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return None
    job = f"SLURM job {os.environ['SLURM_JOB_ID']}"
    if any(name not in os.environ for name in _SLURM_STEP):
        return Cluster(f"{job}, but not started by srun: one process")
    processes = _number("SLURM_STEP_NUM_TASKS", 1)
    if processes == 1:
        return Cluster(f"{job}, one task")
    process, place = _number("SLURM_PROCID"), _number("SLURM_LOCALID")
    if process >= processes:
        raise UserError(f"SLURM's variables contradict one another: task {process} of {processes} (SLURM_PROCID)")
    from jax._src.clusters import SlurmCluster

    # JAX's port is a function of the job; steps of a job may run side by side on a node.
    step = os.environ.get("SLURM_STEP_ID", "")
    port = 61440 + (int(os.environ["SLURM_JOB_ID"]) + 17 * int(step if step.isdigit() else 0)) % 4096
    on_node = os.environ.get("SLURM_GPUS_ON_NODE", "")
    return Cluster(
        job + (f".{step}" if step.isdigit() else ""),
        SlurmCluster.get_coordinator_address(None, os.environ.get("JAX_COORDINATOR_PORT", str(port))),
        processes,
        process,
        own_gpus(
            _tasks_here(place), place, int(on_node) if on_node.isdigit() else None,
            "start one task a GPU (--ntasks-per-node), or one a node that has them all",
        ),
    )  # fmt: skip


def _tasks_here(place: int) -> int:
    """How many tasks of the step run on this node: its part of SLURM_STEP_TASKS_PER_NODE, such as `4(x2),3`."""
    counts: list[int] = []
    for item in os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        count, _, times = item.partition("(x")
        if count.isdigit():
            counts += [int(count)] * int(times.rstrip(")") or 1)
    node = os.environ.get("SLURM_NODEID", "")
    if counts and node.isdigit() and int(node) < len(counts):
        return counts[int(node)]
    return max([place + 1, *counts])


def own_gpus(tasks: int, place: int, on_node: int | None, advice: str) -> tuple[int, ...] | None:
    """Which of the GPUs that it sees a process uses: all of them, or one, where the others on its node see the same.

    Args:
      tasks: processes of the run on this node; this is number `place` of them.
      on_node: GPUs that the run has on this node, where the scheduler tells.

    Returns:
      Places among the GPUs that the process sees; None for all of them, or where there is no GPU.

    Raises:
      UserError: some GPU would be idle, or there are more processes than GPUs.
    """
    if "JAX_LOCAL_DEVICE_IDS" in os.environ or not _uses_gpus():
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        seen = on_node if on_node is not None else len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    else:
        seen = sum(item.strip() not in ("", "-1", "NoDevFiles") for item in visible.split(","))
    if not seen:
        return None
    shared = tasks > 1 and (seen * tasks > on_node if on_node else seen > 1)
    gpus = on_node or (seen if shared else seen * tasks)
    used = tasks if shared else seen * tasks
    if used < gpus:
        raise UserError(f"{gpus - used} of {gpus} GPUs of this node would be idle with {tasks} process(es): {advice}")
    if used > gpus:
        raise UserError(f"{tasks} processes for {gpus} GPUs of this node: {advice}")
    return (place,) if shared else None


def _uses_gpus() -> bool:
    if os.environ.get("JAX_PLATFORMS", "") == "cpu":
        return False
    return any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13))


def has_tpu() -> bool:
    """Whether this machine has TPUs; as launch/local.sh asks.

    Up to v4 they are files that no other device has; later ones lie under /dev/vfio, as other devices do, and their
    numbers on the PCI bus tell them apart (jax/_src/hardware_utils.py).
    """
    if any(_ROOT.glob("dev/accel[0-9]*")):
        return True
    for device in _ROOT.glob("sys/bus/pci/devices/*"):
        with contextlib.suppress(OSError):
            if [(device / name).read_text().strip() for name in ("vendor", "device")] in _TPUS:
                return True
    return False


def _tpu() -> Cluster | None:
    """Hosts of a TPU slice, or of several: JAX asks the variables of GKE, or the metadata server of a TPU VM."""
    told = "TPU_WORKER_HOSTNAMES" in os.environ or "TPU_PROCESS_ADDRESSES" in os.environ
    if not told and not has_tpu():
        return None
    from jax._src.clusters import GceTpuCluster, GkeTpuCluster

    for name, kind in (("TPU on GKE", GkeTpuCluster), ("TPU VM", GceTpuCluster)):
        try:
            if kind.is_env_present():
                processes, process = kind.get_process_count(), kind.get_process_id()
                if processes == 1:
                    return Cluster(f"{name}, one host")
                port = os.environ.get("JAX_COORDINATOR_PORT")
                return Cluster(name, kind.get_coordinator_address(WAIT_S, port), processes, process)
        except Exception as error:  # whatever the metadata server or its client comes up with
            raise UserError(f"{name}: JAX could not find out its hosts: {error}; {_INSTEAD}") from None
    return None


_INSTEAD = f"set {', '.join(OWN)}, or --mesh.distributed off for one process"


def _kubernetes() -> Cluster | None:
    """Pods of an indexed Job. (Any pod has KUBERNETES_SERVICE_HOST; JAX's detection raises in one without a Job.)"""
    if not os.environ.get("KUBERNETES_SERVICE_HOST") or "JOB_COMPLETION_INDEX" not in os.environ:
        return None
    if importlib.util.find_spec("kubernetes") is None:
        raise UserError(f"this is a pod of an indexed Job, and to find the others JAX needs `jax[k8s]`: {_INSTEAD}")
    from jax._src.clusters import K8sCluster

    try:
        if not K8sCluster.is_env_present():
            return None
        processes = K8sCluster.get_process_count()
        if processes == 1:
            return Cluster("Kubernetes Job, one pod")
        address = K8sCluster.get_coordinator_address(WAIT_S, os.environ.get("JAX_COORDINATOR_PORT"))
        return Cluster("Kubernetes Job", address, processes, K8sCluster.get_process_id())
    except Exception as error:  # whatever the Kubernetes client raises
        raise UserError(f"Kubernetes: JAX could not find out the Job's pods: {error}; {_INSTEAD}") from None
