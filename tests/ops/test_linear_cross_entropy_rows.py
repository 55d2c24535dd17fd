"""How the op cuts its rows, and what it owes to few of them."""

import sys

import pytest
import torch
import torch.nn.functional as F
from check import check
from suite import native

from bigfast.ops import linear_cross_entropy

MODULE = sys.modules["bigfast.ops.linear_cross_entropy"]  # its name is the function's, too


def test_chunks_are_bounded_and_even():
    chunk_rows = MODULE._chunk_rows
    assert chunk_rows(154, 30522, 2) == 154  # one chunk: dW is not added to
    assert chunk_rows(1024, 30522, 2) == 512 and chunk_rows(825, 30522, 2) == 413
    assert chunk_rows(4096, 10**6, 4) == 373
    assert chunk_rows(0, 30522, 2) == 0 and chunk_rows(1, 1, 2) == 1
    # On a GPU: whole tiles of a product, few chunks, less than a tenth of the logits at once.
    assert chunk_rows(16384, 30522, 2, True) == 1408 < 16384 / 10
    assert chunk_rows(1229, 30522, 2, True) == 640 and chunk_rows(200, 30522, 2, True) == 200
    assert chunk_rows(0, 30522, 2, True) == 0


@native
def test_logits_never_exist_whole():
    """The largest tensor that is made is dW, however many rows there are."""
    input, weight, target = torch.randn(4096, 16), torch.randn(500, 16), torch.randint(500, (4096,))
    biggest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal biggest
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(t, torch.Tensor):
                    biggest = max(biggest, t.untyped_storage().nbytes())
            return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "_CHUNK_BYTES", 1 << 18)
        patch.setattr(MODULE, "_CHUNK_ROWS", 128)
        with Watch():
            MODULE._run_chunks(
                input, weight, None, target, torch.ones(()), -100, 0.0, 0.0, torch.float32,
                True, True, False,
            )  # fmt: skip
    assert biggest <= 1 << 19 < 4096 * 500 * 4 // 8


@native
@pytest.mark.parametrize("rows", [1, 5, 11])
def test_few_labelled_rows_among_many(rows):
    """The product of few rows alone is ten times as inexact as stock's, of all of them."""
    inputs, weight = torch.randn(96, 384), torch.randn(8000, 384) * 0.02
    target = torch.full((96,), -100)
    target[:rows] = torch.randint(0, 8000, (rows,))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        gradients = []
        stock = lambda x, w, t: F.cross_entropy(F.linear(x, w), t)
        for loss, dtype in (
            (linear_cross_entropy, torch.float32),
            (stock, torch.float32),
            (stock, torch.float64),
        ):
            leaf = inputs.to(dtype, copy=True).requires_grad_()
            loss(leaf, weight.to(dtype), target).backward()
            gradients.append(leaf.grad)
    finally:
        torch.set_num_threads(threads)
    check(*gradients)
