"""StableHLO modules against JAX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fleetui.workshop.errors import ModelError, UnsupportedError
from fleetui.workshop.frontends.stablehlo import FRONTEND
from fleetui.workshop.graph import ir
from fleetui.workshop.options import InputSpec
from tests.helpers.frontends import agree, jax_exported

jax = pytest.importorskip("jax", reason="the extra 'stablehlo' is not installed")
jnp, lax = jax.numpy, jax.lax
RNG = np.random.default_rng(5)


def numbers(*shape: int):
    return RNG.standard_normal(shape).astype(np.float32)


W1, W2, K, KD, KF = numbers(8, 16), numbers(16, 4), numbers(3, 3, 3, 8), numbers(3, 3, 1, 8), numbers(5, 8, 3, 3)


def mlp(x):
    return jax.nn.softmax(jax.nn.gelu(x @ W1 + 1.0) @ W2)


def cnn(x):
    y = jax.nn.relu(lax.conv_general_dilated(x, K, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")))
    y = lax.conv_general_dilated(
        y, KD, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=8
    )
    y = lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    y = lax.reduce_window(y, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "SAME") / 4
    y = lax.conv_general_dilated(jnp.transpose(y, (0, 3, 1, 2)), KF, (1, 1), ((1, 1), (1, 1)))
    up = lax.conv_transpose(jnp.transpose(y, (0, 2, 3, 1)), numbers(3, 3, 5, 2), (2, 2), "SAME")
    return y.mean((2, 3)), y.argmax(1), jax.image.resize(y, (1, 5, 7, 7), "bilinear"), up


def sundry(x, i):
    return (
        x[1:3], x[i], jnp.concatenate([x, x[:, ::-1]]), jnp.where(x > 0, x, -x), jnp.cumsum(x, 1), jnp.sort(x, 1),
        jnp.einsum("ij,kj->ik", x, x), jnp.pad(x, ((1, 0), (0, 2)), constant_values=2.0), jnp.var(x, 0),
        jax.nn.one_hot(i, 5), *lax.top_k(x, 2), x.astype(jnp.int32) // 2, x.at[0].set(3.0), x.at[i].add(1.0),
        x[:, i],
        jnp.take_along_axis(x, jnp.argsort(x, 1), 1), jnp.linalg.norm(x, axis=1), jnp.max(x, 1), jnp.round(x),
        jnp.clip(x, -1, 1), lax.erf(x), jnp.mod(x, 0.7), jnp.tril(x), lax.dynamic_slice(x, (i[0], i[1]), (2, 2)),
        lax.dynamic_update_slice(x, x[:2, :2], (i[0], i[1])), jnp.any(x > 1, 0), jnp.cbrt(x), jnp.isfinite(x),
    )  # fmt: skip


def recurrent(x):
    def step(h, given):
        h = jnp.tanh(given @ W1[:, :8] + h @ W1[:8, 8:])
        return h, h

    state, every = lax.scan(step, jnp.zeros((2, 8)), x)
    return every, state


CASES = {
    "mlp": (mlp, [((3, 8), "float32")]),
    "cnn": (cnn, [((1, 16, 16, 3), "float32")]),
    "sundry": (sundry, [((4, 6), "float32"), ((3,), "int32")]),
    "recurrent": (recurrent, [((5, 2, 8), "float32")]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_module_gives_what_jax_gives(case: str, tmp_path: Path) -> None:
    function, shapes = CASES[case]
    agree(FRONTEND, jax_exported(function, shapes, tmp_path / "model.bin", "bytecode"))


@pytest.mark.parametrize("form", ["text", "bytecode", "jax"])
def test_every_form_is_read(form: str, tmp_path: Path) -> None:
    path = jax_exported(mlp, [((2, 8), "float32")], tmp_path / "model", form)
    agree(FRONTEND, path)
    report = FRONTEND.inspect(path, ())
    assert report.inputs[0].shape == (2, 8)
    assert report.operators["stablehlo.dot_general"] == 2
    assert report.problems == []
    assert report.flops >= 2 * 2 * (8 * 16 + 16 * 4)


def test_names_come_from_the_function(tmp_path: Path) -> None:
    def named(weights, pixels):
        return {"logits": weights * 2, "sure": pixels + 1}

    path = jax_exported(named, [((2,), "float32"), ((3,), "float32")], tmp_path / "model", "text")
    graph = FRONTEND.load(path, ())
    assert [v.name for v in graph.inputs] == ["weights", "pixels"]
    assert [v.name for v in graph.outputs] == ["logits", "sure"]


def test_open_dimensions_are_settled(tmp_path: Path) -> None:
    from jax import export

    (batch,) = export.symbolic_shape("b")
    path = jax_exported(mlp, [((batch, 8), "float32")], tmp_path / "model", "bytecode")
    report = FRONTEND.inspect(path, ())
    assert report.symbolic == ["batch"]
    graph = agree(FRONTEND, path, [InputSpec(report.inputs[0].name, (5, 8))])
    assert graph.outputs[0].shape == (5, 4)


def test_foreign_code_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.mlir"
    path.write_text("""module {
  func.func public @main(%a: tensor<2xf32>) -> tensor<2xf32> {
    %0 = stablehlo.custom_call @their_library(%a) : (tensor<2xf32>) -> tensor<2xf32>
    return %0 : tensor<2xf32>
  }
}""")
    (problem,) = FRONTEND.inspect(path, ()).problems
    assert "their_library" in problem.operator
    with pytest.raises(UnsupportedError, match="their_library"):
        FRONTEND.load(path, ())


def test_bfloat16_constants_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.mlir"
    path.write_text("""module {
  func.func public @main(%a: tensor<3xbf16>) -> tensor<3xf32> {
    %c = stablehlo.constant dense<[1.5, -2.0, 3.0]> : tensor<3xbf16>
    %s = stablehlo.constant dense<2.0> : tensor<3xbf16>
    %0 = stablehlo.multiply %c, %s : tensor<3xbf16>
    %1 = stablehlo.add %0, %a : tensor<3xbf16>
    %2 = stablehlo.convert %1 : (tensor<3xbf16>) -> tensor<3xf32>
    return %2 : tensor<3xf32>
  }
}""")
    graph = FRONTEND.load(path, ())
    import ml_dtypes

    (have,) = ir.run(graph, {graph.inputs[0].name: np.ones(3, ml_dtypes.bfloat16)}).values()
    np.testing.assert_array_equal(have, np.array([4, -3, 7], np.float32))


def test_recursion_without_end_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.mlir"
    path.write_text("""module {
  func.func public @main(%a: tensor<2xf32>) -> tensor<2xf32> {
    %0 = func.call @main(%a) : (tensor<2xf32>) -> tensor<2xf32>
    return %0 : tensor<2xf32>
  }
}""")
    with pytest.raises(ModelError, match="without end"):
        FRONTEND.load(path, ())


def test_text_that_does_not_parse_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.mlir"
    path.write_text("module { func.func @main( stablehlo. ")
    assert FRONTEND.sniff(path.read_bytes(), path)
    with pytest.raises(ModelError, match="no sound StableHLO"):
        FRONTEND.load(path, ())
