"""Machines by name: what is asked for is understood, or refused in one line before JAX is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from jaxlm import cli
from jaxlm.errors import UserError
from jaxlm.parallel import topologies
from jaxlm.parallel.chips import CHIPS
from jaxlm.parallel.topologies import prepare_environment, read_name


@pytest.mark.parametrize(
    ("name", "platform", "count"),
    [("v5e:4x4", "tpu", 16), ("v6e:16x16", "tpu", 256), ("v5p:2x2x2", "tpu", 8), ("v4:4x4x4", "tpu", 64),
     ("h100:8", "cuda", 8), ("h200:8x2", "cuda", 16), ("a100:1", "cuda", 1)],
)  # fmt: skip
def test_a_machine_is_understood_by_its_name(name: str, platform: str, count: int) -> None:
    request = read_name(name)
    assert (request.platform, request.devices) == (platform, count)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("v5:4x4", "'v5' is no machine that is known here; did you mean v5p?"),
        ("tpu", "there are v4, v5e, v5p, v6e, a100, h100, h200"),
        ("v5e", "KIND:SHAPE is meant, such as v5e:2x2"),
        ("v5e:", "KIND:SHAPE is meant"),
        ("v5e:4x", "KIND:SHAPE is meant"),
        ("v5e:0x4", "KIND:SHAPE is meant"),
        ("v5e:-4x4", "KIND:SHAPE is meant"),
        ("v5e:2x2x2", "a v5e has 2 dimensions, not 3; usual shapes are 1x1, 2x2"),
        ("v5p:4x4", "a v5p has 3 dimensions, not 2"),
        ("v6e:32x32", "no more than 256 chips of a v6e are linked"),
        ("h100:eight", "KIND:SHAPE is meant, such as h100:8 or h100:8x2"),
        ("h100:2x2x2", "GPUs a host and hosts are meant, such as h100:8x2"),
        ("H100:8", "did you mean h100?"),
    ],
)
def test_a_machine_that_is_not_understood_is_refused_in_one_line(name: str, answer: str) -> None:
    with pytest.raises(UserError) as refused:
        read_name(name)
    assert answer in str(refused.value)
    assert str(refused.value).startswith(f"--topology {name}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "command"), [("v5e:4x4", "jaxlm[aot]"), ("h200:8", "jaxlm[cuda]")])
def test_a_missing_compiler_is_named_with_the_command_that_installs_it(
    name: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install") as refused:
        prepare_environment(read_name(name))
    assert command in str(refused.value)


def test_every_machine_is_made_of_a_chip_whose_figures_are_known() -> None:
    for kind in (*topologies._TPUS.values(), *topologies._GPUS.values()):
        chip = CHIPS[kind.chip]
        assert chip.bandwidth
        assert chip.links
    for gpu in topologies._GPUS.values():
        assert gpu.memory == pytest.approx(CHIPS[gpu.chip].memory, rel=0.02)
        assert gpu.bandwidth == pytest.approx(CHIPS[gpu.chip].bandwidth, rel=0.002)


def test_a_wrong_machine_is_answered_before_jax_is_imported() -> None:
    preset = Path(__file__).parents[2] / "configs" / "sst2.py"
    code = (
        "import sys; from jaxlm import cli; code = cli.main(sys.argv[1:]); "
        "assert not {'jax', 'numpy', 'transformers'} & set(sys.modules), 'imported'; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "compile", str(preset), "--topology", "v5e:4"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_a_machine_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compile", str(Path(__file__).parents[2] / "configs" / "sst2.py")]) == 2
    assert "--topology names the machine, such as v5e:4x4" in capsys.readouterr().err
