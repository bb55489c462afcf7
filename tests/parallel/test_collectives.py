"""What a compiled program's text says of its communication is read as it stands there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.parallel.collectives import Collective, by_kind_and_axes, collectives

MESH = {"data": 2, "fsdp": 2, "tensor": 2}


def entry(*lines: str, before: str = "") -> str:
    return f"{before}ENTRY %main.1_spmd (p: f32[4]) -> f32[4] {{\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


@pytest.mark.parametrize(
    ("groups", "axes", "group"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", ("tensor",), 2),
        ("{{0,2},{1,3},{4,6},{5,7}}", ("fsdp",), 2),
        ("{{0,2,4,6},{1,3,5,7}}", ("data", "fsdp"), 4),
        ("{{0,1,2,3,4,5,6,7}}", ("data", "fsdp", "tensor"), 8),
        ("{}", ("data", "fsdp", "tensor"), 8),
        ("[4,2]<=[8]", ("tensor",), 2),
        ("[4,2]<=[2,4]T(1,0)", ("data",), 2),
        ("[4,2]<=[2,2,2]T(0,2,1)", ("fsdp",), 2),
        ("[2,4]<=[4,2]T(1,0)", ("data", "fsdp"), 4),
        ("[1,8]<=[8]", ("data", "fsdp", "tensor"), 8),
        ("[2,4]<=[8]", ("fsdp", "tensor"), 4),
        ("mesh['axis_0'=8,'axis_1'=1] {'axis_0'}", ("data", "fsdp", "tensor"), 8),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_1'}", ("tensor",), 2),
        ("mesh['axis_0'=2,'axis_1'=2,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_0'}", ("fsdp",), 2),
        ("mesh['axis_0'=2,'axis_1'=1,'axis_2'=4], device_ids=([2,2,2]T(1,0,2)) {'axis_2'}", ("data", "tensor"), 4),
        ("mesh['a'=2,'b'=4], device_ids=(0,1,2,3,4,5,6,7) {'a','b':(1)2}", ("data", "fsdp"), 4),
        ("mesh['a'=8] {'a':(2)2}", ("fsdp",), 2),
    ],
)
def test_groups_of_devices_name_the_axes_of_the_mesh(groups: str, axes: tuple[str, ...], group: int) -> None:
    line = f"%all-reduce.3 = f32[16,8]{{1,0}} all-reduce(%dot.1), channel_id=1, replica_groups={groups}, to_apply=%add"
    assert collectives(entry(line), MESH) == [Collective("all-reduce", 512, axes, group, False, 1, "f32")]


@pytest.mark.parametrize(
    ("line", "kind", "size", "sent"),
    [
        ("%a = f32[16]{0} all-gather(f32[8]{0} %p), replica_groups=[4,2]<=[8], dimensions={0}", "all-gather", 64, 32),
        ("%a = f32[8]{0} reduce-scatter(f32[16]{0} %p), replica_groups=[4,2]<=[8]", "reduce-scatter", 64, 32),
        ("%a = bf16[16]{0} all-reduce(bf16[16]{0} %p), replica_groups=[4,2]<=[8]", "all-reduce", 32, 32),
        ("%a = (f32[2]{0}, s8[4]{0}) all-reduce(%p, %q), replica_groups=[4,2]<=[8]", "all-reduce", 12, 12),
        ("%a = (f32[2]{0}, /*index=1*/s8[4]{0}) all-reduce(%p, %q), replica_groups={{0,1}}", "all-reduce", 12, 12),
        ("%a = (f32[4]{0}, f32[4]{0}) all-to-all(%p, %q), replica_groups=[4,2]<=[8]", "all-to-all", 32, 16),
        (
            "%a = f32[4]{0} collective-permute(%p), source_target_pairs={{0,1},{1,0},{2,3},{3,2}}",
            "collective-permute", 16, 16,
        ),
        # As a TPU's compiler writes them: in two halves, with tiles in the layouts.
        (
            "%a = (bf16[8,128]{1,0:T(8,128)(2,1)}, bf16[16,128]{1,0:T(8,128)(2,1)S(1)}) all-gather-start(%p), "
            "replica_groups=[4,2]<=[8], dimensions={0}",
            "all-gather", 4096, 2048,
        ),
        (
            "%a = f32[8,128]{1,0:T(8,128)} all-reduce-start(%p), replica_groups=[4,2]<=[8], to_apply=%add",
            "all-reduce", 4096, 4096,
        ),
        (
            "%a = (f32[4]{0}, f32[4]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%p), "
            "source_target_pairs={{0,1},{1,0}}",
            "collective-permute", 16, 16,
        ),
    ],
)  # fmt: skip
def test_sizes_are_those_of_the_whole_exchange_and_a_ring_sends_its_share(
    line: str, kind: str, size: int, sent: int
) -> None:
    (found,) = collectives(entry(line, "%d = f32[16]{0} all-gather-done(%a)"), MESH)
    assert (found.kind, found.bytes, found.sent, found.axes) == (kind, size, sent, ("tensor",))


def test_text_in_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="devices are not to be read"):
        collectives(entry("%a = f32[4]{0} all-reduce(%p), replica_groups=@mesh, to_apply=%add"), MESH)
    with pytest.raises(ValueError, match="device 8 is none"):
        collectives(entry("%a = f32[4]{0} all-reduce(%p), replica_groups={{0,8}}, to_apply=%add"), MESH)


def test_a_compiled_programs_loops_and_axes_are_found() -> None:
    mesh = jax.make_mesh((2, 2, 2), tuple(MESH), axis_types=(AxisType.Auto,) * 3)

    def program(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        def body(total: jax.Array, _: None) -> tuple[jax.Array, None]:
            return jnp.tanh(total + jax.lax.psum(total, "fsdp")), None

        once = jax.lax.psum(x, ("data", "tensor"))
        return once, jax.lax.pcast(jax.lax.scan(body, x, None, length=5)[0], "fsdp", to="varying")

    rows = P(("data", "fsdp", "tensor"))
    mapped = jax.shard_map(program, mesh=mesh, in_specs=rows, out_specs=(P("fsdp"), rows), check_vma=False)
    compiled = jax.jit(mapped, in_shardings=NamedSharding(mesh, rows)).lower(np.zeros((8, 4), np.float32)).compile()
    found = by_kind_and_axes(collectives(compiled.as_text(), mesh.shape))
    assert found == {
        ("all-reduce", ("data", "tensor")): [Collective("all-reduce", 16, ("data", "tensor"), 4, False, 1, "f32")],
        ("all-reduce", ("fsdp",)): [Collective("all-reduce", 16, ("fsdp",), 2, True, 5, "f32")],
    }
