"""What accelerators can do at most, as their vendors state it.

Every figure is of one JAX device, for dense products: without the factor 2 of NVIDIA's structured sparsity, which most
data sheets include.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

_GIB = 2**30


class Chip(NamedTuple):
    flops: float  # peak FLOP/s of 16-bit matrix products that add up in float32
    memory: int  # bytes of device memory; `Device.memory_stats()` says what is left of it for arrays
    dtypes: tuple[str, ...] = ("bfloat16", "float16")  # the 16-bit types it multiplies at that rate
    # Bytes/s, of devices that programs are compiled for ahead of time; None: not looked up.
    bandwidth: float | None = None  # of the device's memory
    links: float | None = None  # what a device sends to the others of its slice, or of its host, over all its links
    clock: float | None = None  # Hz; of TPUs, for which compilers count cycles


def _tpu(
    teraflops: float, gib: float, bandwidth: float | None = None, links: float | None = None,
    multipliers: int | None = None,
) -> Chip:  # fmt: skip
    """Bandwidths in GB/s; `multipliers` are the cells of all matrix units, each a multiplication and a sum a cycle."""
    clock = multipliers and teraflops * 1e12 / (2 * multipliers)
    return Chip(teraflops * 1e12, int(gib * _GIB), ("bfloat16",), _giga(bandwidth), _giga(links), clock)


def _gpu(teraflops: float, gib: int, bandwidth: float | None = None, links: float | None = None) -> Chip:
    return Chip(teraflops * 1e12, gib * _GIB, bandwidth=_giga(bandwidth), links=_giga(links))


def _giga(value: float | None) -> float | None:
    return None if value is None else value * 1e9


def _volta_or_turing(teraflops: float, gib: int) -> Chip:
    return Chip(teraflops * 1e12, gib * _GIB, ("float16",))


# JAX reports a TPU by the names in jax/_src/pallas/mosaic/tpu_info.py, and a GPU by that which CUDA's
# cuDeviceGetName gives. What a GPU is called is no prefix code (NVIDIA L4, L40, L40S; A100-SXM4-40GB, and a seventh of
# it: A100-SXM4-40GB MIG 1g.5gb), and neighbours differ: hence whole names.
CHIPS: dict[str, Chip] = {
    # https://cloud.google.com/tpu/docs/v3, /v4, /v5e, /v5p, /v6e, /tpu7x: per chip. The two cores of a v3 and of a
    # TPU7x are a device each, those of a v4 and of a v5p are one device together. Links: half of the "bidirectional
    # inter-chip interconnect bandwidth per chip" there, and of a v4 six links of 50 GB/s (Jouppi et al. 2023,
    # arXiv:2304.01433, table 4). A v5p's memory is what its compiler says; the page says 95 GB.
    "TPU v3": _tpu(123 / 2, 32 / 2),
    # Multipliers: four matrix units of 128 x 128 a core there, and one core of a v5e, two of a v4 and a v5p; four of
    # 256 x 256 of a v6e. Its page has said two as well; with two, libtpu's cycles of a product would beat the peak.
    "TPU v4": _tpu(275, 32, 1200, 300, multipliers=8 * 128**2),
    "TPU v5 lite": _tpu(197, 16, 819, 200, multipliers=4 * 128**2),
    "TPU v5e": _tpu(197, 16, 819, 200, multipliers=4 * 128**2),
    "TPU v5": _tpu(459, 95.74, 2765, 600, multipliers=8 * 128**2),
    "TPU v5p": _tpu(459, 95.74, 2765, 600, multipliers=8 * 128**2),
    "TPU v6 lite": _tpu(918, 32, 1638, 400, multipliers=4 * 256**2),
    "TPU v6e": _tpu(918, 32, 1638, 400, multipliers=4 * 256**2),
    "TPU7x": _tpu(2307 / 2, 192 / 2),
    # NVIDIA Blackwell data sheet, HGX B200 and GB200 NVL72, a GPU; half of the figure with sparsity.
    "NVIDIA GB200": _gpu(5000 / 2, 186),
    "NVIDIA B200": _gpu(4500 / 2, 180),
    # NVIDIA data sheets of GH200, H200 and H100; half of the figures with sparsity. Links: half of NVLink's figure,
    # which counts both directions.
    "NVIDIA GH200 480GB": _gpu(1979 / 2, 96),
    "NVIDIA H200": _gpu(1979 / 2, 141, 4800, 900 / 2),
    "NVIDIA H200 NVL": _gpu(1671 / 2, 141),
    "NVIDIA H100 80GB HBM3": _gpu(1979 / 2, 80, 3350, 900 / 2),
    "NVIDIA H100 NVL": _gpu(1671 / 2, 94),
    "NVIDIA H100 PCIe": _gpu(1513 / 2, 80),
    # NVIDIA A100 data sheet: the same for all four.
    "NVIDIA A100-SXM4-80GB": _gpu(312, 80, 2039, 600 / 2),
    "NVIDIA A100-SXM4-40GB": _gpu(312, 40),
    "NVIDIA A100 80GB PCIe": _gpu(312, 80),
    "NVIDIA A100-PCIE-40GB": _gpu(312, 40),
    # NVIDIA data sheets of A40 and A10; that of the A10G is Amazon's, NVIDIA_AWS_A10G_DataSheet_FINAL_02_17_2022.pdf.
    "NVIDIA A40": _gpu(149.7, 48),
    "NVIDIA A10": _gpu(125, 24),
    "NVIDIA A10G": _gpu(70, 24),
    # NVIDIA data sheets of L40S, L40 and L4 (half of its figure with sparsity); RTX 4090: NVIDIA Ada GPU architecture
    # white paper, appendix A, with FP32 accumulate.
    "NVIDIA L40S": _gpu(362.05, 48),
    "NVIDIA L40": _gpu(181.05, 48),
    "NVIDIA L4": _gpu(242 / 2, 24),
    "NVIDIA GeForce RTX 4090": _gpu(165.2, 24),
    # NVIDIA data sheets of V100, V100S and T4; their tensor cores know float16 alone.
    "Tesla V100-SXM2-32GB": _volta_or_turing(125, 32),
    "Tesla V100-SXM2-16GB": _volta_or_turing(125, 16),
    "Tesla V100-PCIE-32GB": _volta_or_turing(112, 32),
    "Tesla V100-PCIE-16GB": _volta_or_turing(112, 16),
    "Tesla V100S-PCIE-32GB": _volta_or_turing(130, 32),
    "Tesla T4": _volta_or_turing(65, 16),
}


def peak_flops(device_kind: str, dtype: Any) -> float | None:
    """Peak FLOP/s of a device's matrix products in `dtype`; None where it is not known.

    Not known are devices that `CHIPS` lacks (CPUs among them), float32, whose rate depends on how many passes
    `jax.default_matmul_precision` makes of it, and a 16-bit type that the device does not multiply natively.

    Args:
      device_kind: `jax.Device.device_kind`.
      dtype: compute dtype.
    """
    chip = CHIPS.get(device_kind)
    return None if chip is None or jnp.dtype(dtype).name not in chip.dtypes else chip.flops
