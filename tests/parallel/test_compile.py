"""The presets' very training steps, compiled by the TPU's compiler for machines that are not here."""

import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxlm.parallel.ahead_of_time import bytes_wanted, shard_bytes
from jaxlm.parallel.collectives import collectives
from jaxlm.parallel.cycles import estimated_cycles
from jaxlm.training.setup import scans_layers

ROOT = Path(__file__).parents[2]


def compile_for(preset: str, topology: str, *flags: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "jaxlm", "compile", f"configs/{preset}.py", "--topology", topology,
               "--no-largest_batch", *flags]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    return done.returncode, done.stdout + done.stderr


def figure(report: str, label: str) -> float:
    found = re.search(rf"{re.escape(label)}.*? ([\d.]+)( \w+)?$", report, re.MULTILINE)
    assert found, report
    return float(found[1])


@pytest.mark.parametrize("topology", ["v5e:4x4", "v6e:16x16"])
@pytest.mark.parametrize(
    ("preset", "flags", "parameters", "step"),
    [
        ("sst2", ("--train.batch_size", "256"), 109.5e6, "256 examples, 32768 tokens, in 256 rows of 128"),
        ("pretrain_bert_large", (), 336.2e6, "32768 examples, .*, in 32768 rows of 512, phase 2 of 2"),
    ],
)
def test_a_preset_fits(preset: str, flags: tuple[str, ...], parameters: float, step: str, topology: str) -> None:
    code, report = compile_for(preset, topology, *flags)
    assert code == 0, report
    assert re.search(rf"a step of {step}$", report, re.MULTILINE), report
    assert "does not fit" not in report
    assert figure(report, "state: parameters and optimizer") == pytest.approx(parameters * 12 / 2**30, abs=0.02)
    assert figure(report, "state: parameters and optimizer") < figure(report, "peak") < figure(report, "usable")
    # Each chip sends all gradients once, in float32, but for a ring's last step; in however many parts it computes.
    devices = {"v5e:4x4": 16, "v6e:16x16": 256}[topology]
    gradients = parameters * 4 * 2 * (devices - 1) / devices / 2**20
    assert figure(report, "all-reduce along data") == pytest.approx(gradients, rel=0.01)
    assert "all-gather" not in report
    at_least = float(re.search(r"at the chip's peaks: arithmetic ([\d.]+) ms", report)[1])
    estimate, utilization = re.search(r"own estimate, exchange apart: ([\d.]+) ms, MFU (\d+)%", report).groups()
    assert at_least < float(estimate)
    if topology.startswith("v5e"):  # of v6e's 256 chips each has one row, or two at once
        assert float(estimate) < 6 * at_least
    assert int(utilization) == pytest.approx(100 * at_least / float(estimate), abs=1)


@pytest.mark.parametrize(
    ("preset", "topology", "batch", "memory"),
    [("sst2", "v5e:4x4", 32 * 64 * 16, "15.75 GiB on each TPU v5 lite"),
     ("pretrain_bert_large", "v6e:16x16", 32768 * 64, "31.24 GiB on each TPU v6 lite")],
)  # fmt: skip
def test_a_batch_that_is_64_times_as_large_does_not(preset: str, topology: str, batch: int, memory: str) -> None:
    code, report = compile_for(preset, topology, "--train.batch_size", str(batch))
    assert code == 1, report
    assert re.search(rf"does not fit: needs \d+\.\d\d GiB of {memory}", report), report


def test_what_a_program_can_have_is_what_the_compiler_says() -> None:
    code = """
import re
from jaxlm.parallel.topologies import describe, prepare_environment, read_name
machines = [read_name(name) for name in ("v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2")]
prepare_environment(machines[0])
import jax
for request in machines:
    machine = describe(request)
    one = jax.sharding.SingleDeviceSharding(machine.devices[0])
    too_large = jax.ShapeDtypeStruct((2**18, 2**17), "float32", sharding=one)
    try:
        jax.jit(lambda x: x + 1).trace(too_large).lower(lowering_platforms=("tpu",)).compile()
    except jax.errors.JaxRuntimeError as error:
        print(re.search(r"available HBM .([0-9.]+)G", str(error))[1], round(machine.memory / 2**30, 2))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    said = [line.split() for line in done.stdout.splitlines()]
    assert len(said) == 4, done.stderr
    for available, ours in said:
        assert float(available) == float(ours)


def test_cycles_of_a_loop_count_as_often_as_it_runs() -> None:
    def cycles(count: int) -> str:
        return f'backend_config={{"window_config":{{"estimated_cycles":"{count}"}}}}'

    text = f"""
%condition (state: (s32[], f32[8])) -> pred[] {{
  %limit.1 = s32[]{{:T(128)}} constant(11)
  %state = (s32[], f32[8]) parameter(0)
  %counter = s32[]{{:T(128)}} get-tuple-element(%state), index=0
  ROOT %less = pred[]{{:T(512)}} compare(%counter, %limit.1), direction=LT
}}
%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {{
  %x = f32[8] fusion(%state), kind=kLoop, calls=%fused, {cycles(100)}
  ROOT %y = (s32[], f32[8]) fusion(%x), kind=kLoop, calls=%fused, {cycles(20)}
}}
ENTRY %main (state: (s32[], f32[8])) -> (s32[], f32[8]) {{
  %z = f32[8] fusion(%state), kind=kLoop, calls=%fused, {cycles(7)}
  %called = f32[8] call(%z), to_apply=%other, {cycles(2**63 - 1)}
  ROOT %loop = (s32[], f32[8]) while(%called), condition=%condition, body=%body
}}
"""
    assert estimated_cycles(text) == 7 + 11 * 120
    assert estimated_cycles(text.replace("estimated_cycles", "others")) is None
    assert estimated_cycles(text.replace("direction=LT", "direction=NE")) is None


@pytest.mark.parametrize(
    ("platform", "layers", "loop"),
    [("cpu", 24, False), ("gpu", 2, True), ("cuda", 12, True), ("tpu", 12, False), ("tpu", 24, True)],
)
def test_layers_are_a_loop_where_they_would_take_long_to_compile(platform: str, layers: int, loop: bool) -> None:
    assert scans_layers("auto", platform, layers) == loop
    assert scans_layers("scan", platform, layers)
    assert not scans_layers("unroll", platform, layers)


def test_the_compilers_refusals_are_read() -> None:
    whole = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.03G of 15.75G hbm."
    temporaries = "the total memory required for HLO temporaries (15.50G) exceeds available HBM (15.75G)."
    assert bytes_wanted(whole) == round(17.03 * 2**30)
    assert bytes_wanted(temporaries) == round(15.5 * 2**30)
    assert bytes_wanted("INVALID_ARGUMENT: something else") is None


def test_a_device_has_its_share_of_an_array() -> None:
    mesh = jax.make_mesh((1,), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    assert shard_bytes(jax.ShapeDtypeStruct((6, 4), "float32", sharding=sharding)) == 96
    assert shard_bytes(jax.ShapeDtypeStruct((6, 4), "bfloat16")) == 48


def test_how_often_a_loop_runs_stands_in_its_condition() -> None:
    text = """
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}
%condition (state: (s32[], f32[8])) -> pred[] {
  %limit.1 = s32[]{:T(128)} constant(11)
  %state = (s32[], f32[8]) parameter(0)
  %counter = s32[] get-tuple-element(%state), index=0
  ROOT %less = pred[] compare(%counter, %limit.1), direction=LT
}
%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %x = f32[8] get-tuple-element(%state), index=1
  %reduced = f32[8] all-reduce(%x), replica_groups={{0,1}}, to_apply=%add
}
ENTRY %main (p: f32[8]) -> f32[8] {
  %loop = (s32[], f32[8]) while(%start), condition=%condition, body=%body
}
"""
    (found,) = collectives(text, {"data": 2})
    assert (found.kind, found.bytes, found.times, found.in_loop) == ("all-reduce", 32, 11, True)
    unknown = text.replace("direction=LT", "direction=GT")
    assert collectives(unknown, {"data": 2})[0].times is None
