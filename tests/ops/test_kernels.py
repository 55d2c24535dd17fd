"""How Triton's launchers stand behind the schemas of the native ops."""

import importlib
import subprocess
import sys

import pytest
import torch
from suite import native
from torch._subclasses.fake_tensor import FakeTensorMode

from bigfast.ops import attention, bias_gelu, layer_norm, rms_norm, swiglu
from bigfast.ops.kernels import op_of
from bigfast.ops.schemas import SCHEMAS

pytest.importorskip("triton")


@native
@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_those_of_the_library(name):
    op = getattr(torch.ops.bigfast, name).default
    assert str(op._schema) == str(torch._C.parse_schema(f"bigfast::{SCHEMAS[name]}"))


@pytest.mark.parametrize("name", SCHEMAS)
def test_launchers_take_the_arguments_of_the_schemas(name):
    module = importlib.import_module(f"bigfast.kernels.{op_of(name)}")
    launcher = getattr(module, name).__code__
    schema = torch._C.parse_schema(f"bigfast::{SCHEMAS[name]}")
    names = launcher.co_varnames[: launcher.co_argcount]
    assert list(names) == [argument.name for argument in schema.arguments]


def test_a_gpu_needs_no_library():
    """Schemas, fakes and launchers are there without C++; only `_cpu.so` is hidden here."""
    code = """
import pathlib, torch
exists, pathlib.Path.exists = pathlib.Path.exists, lambda self: False
import bigfast
from bigfast.ops import layer_norm, layer_norm_ref, library
pathlib.Path.exists = exists
assert library.NATIVE_MISSING
x, weight = torch.randn(3, 40), torch.ones(40, requires_grad=True)
with bigfast.backend("triton"):
    y = layer_norm(x, weight)
    y.sum().backward()
torch.testing.assert_close(y, layer_norm_ref(x, weight))
assert weight.grad.shape == (40,)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_layers_trace_with_cuda_tensors():
    """torch.compile(fullgraph=True) needs no GPU to trace what would run on one."""

    def layer(x, residual, weight, bias, seed):
        y, r = layer_norm(
            x, weight, bias, residual=residual, dropout_p=0.1, seed=seed, return_residual=True
        )
        h = rms_norm(swiglu(bias_gelu(y, bias), r), weight).view(2, 3, 2, 16)
        o = attention(h, h, h, causal=True, dropout_p=0.1, seed=seed).flatten(0, 1)
        ends = torch.zeros(3, dtype=torch.int32, device=o.device)
        return attention(o, o, o, cu_seqlens=ends, window=(4, 4)).flatten(1)

    # Without CUDA, torch aborts where autograd meets such a tensor, fake as it is.
    grad = torch.cuda.is_available()
    options = {"device": "cuda", "dtype": torch.bfloat16, "requires_grad": grad}
    with FakeTensorMode():
        x, residual = torch.empty(6, 32, **options), torch.empty(6, 32, **options)
        weight, bias = torch.empty(32, **options), torch.empty(32, **options)
        seed = torch.empty(1, device="cuda", dtype=torch.int64)
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        y = compiled(x, residual, weight, bias, seed)
        assert y.device.type == "cuda" and y.dtype == torch.bfloat16
        if y.requires_grad:
            y.sum().backward()
            assert x.grad.device == y.device and bias.grad.dtype == y.dtype
