"""Tiles by descriptor, which autotuning tries: chosen here, whatever the launch table says."""

import pytest
import torch
from attention_suite import check_attention, ints, packed, qkv
from suite import leaf

from bigfast.ops import attention, dropout_seed

DTYPES = [torch.float32, torch.bfloat16]
INTERPRETED, ONLY = 10**9, "triton"  # conftest.py
# B, S, Sk, H, Hk, D: less than a tile, several, whole ones; one query; dims that are padded.
SHAPES = [
    (2, 37, 37, 3, 3, 16),
    (1, 1, 150, 4, 2, 64),
    (2, 131, 67, 2, 1, 40),
    (1, 128, 256, 2, 1, 64),
    (1, 150, 150, 1, 1, 200),
]


@pytest.fixture
def described(implementation, monkeypatch):
    """The descriptors that kernels were given."""
    from bigfast.kernels import attention_call, launch

    made, choice = [], launch.choice

    def by_descriptor(*args):
        found = choice(*args)
        return None if found is None else found | {"TMA": 1}

    class Descriptor(attention_call.TensorDescriptor):
        def __post_init__(self):
            made.append(self)
            super().__post_init__()

    monkeypatch.setattr(launch, "choice", by_descriptor)
    monkeypatch.setattr(attention_call, "TensorDescriptor", Descriptor)
    return made


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": (20, 3)}])
def test_dense(described, shape, dtype, options):
    check_attention(*qkv(*shape, dtype), **options)
    assert described


def test_dropout(described):
    options = {"dropout_p": 0.2, "seed": dropout_seed()}
    for shape in ((2, 67, 150, 2, 1, 32), (2, 40, 40, 2, 2, 64)):
        check_attention(*qkv(*shape, torch.bfloat16), **options)
    assert described


def test_strides(described):
    """Views of one QKV product."""
    split = lambda f: lambda x, **kwargs: f(*x.unbind(-3), **kwargs)
    check_attention(leaf(2, 70, 3, 4, 32, dtype=torch.bfloat16), wrap=split, causal=True)
    assert described


def test_what_cannot_be_described_is_loaded_by_pointers(described):
    check_attention(*packed(90, 90, 2, 1, 32), cu_seqlens=ints(0, 20, 80))
    check_attention(*qkv(2, 30, 60, 2, 1, 32), seqused_k=ints(33, 60))
    check_attention(*qkv(1, 37, 37, 2, 1, 13))
    q, k, v = qkv(1, 20, 0, 2, 2, 16)
    assert not attention(q, k, v).any()
    assert not described
    q, k, v = qkv(1, 20, 20, 2, 2, 16, torch.bfloat16)
    o = attention(q, k, v)
    forward = len(described)
    torch.autograd.grad(o, q, torch.ones(1, 1, 1, 16, dtype=o.dtype).expand_as(o))  # strides of 0
    assert forward and len(described) == forward
