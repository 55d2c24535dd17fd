import pytest
import torch
from check import check
from suite import native

from bigfast.ops import grad_norm, grad_norm_ref

SHAPES = [(), (1,), (0,), (7, 5), (4097,), (3, 65_537)]  # runs of 4096, tasks of 65536
DTYPES = [torch.float32, torch.bfloat16]


def tensors(dtype, shapes=SHAPES):
    return [torch.randn(s).to(dtype) for s in shapes]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", range(1, len(SHAPES) + 1))
def test_equals_truth(implementation, dtype, count):
    grads = tensors(dtype, SHAPES[:count])
    norm = grad_norm(grads)
    assert norm.dtype == torch.float32 and norm.shape == ()
    check(norm, grad_norm_ref(grads), grad_norm_ref([g.double() for g in grads]))
    theirs = torch.nn.utils.get_total_norm([g.float() for g in grads])  # off by 4e-6 itself
    torch.testing.assert_close(norm, theirs, rtol=1e-5, atol=0)


def test_mixed_dtypes_and_strides(implementation):
    grads = [torch.randn(5, 7).T, torch.randn(9).bfloat16(), torch.randn(20)[::3]]
    check(grad_norm(grads), grad_norm_ref(grads), grad_norm_ref([g.double() for g in grads]))


def test_nothing(implementation):
    with_backend = grad_norm([torch.zeros(0)])
    assert torch.equal(with_backend, torch.zeros(()))


def test_empty_list():
    assert torch.equal(grad_norm([]), torch.zeros(()))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_and_inf_show(implementation, bad):
    grads = tensors(torch.float32)
    grads[-1][2, 65_000] = bad
    assert grad_norm(grads).isnan() == (bad != bad)
    assert not grad_norm(grads).isfinite()


@native
def test_composes():
    grads = tensors(torch.float32)
    compiled = torch.compile(grad_norm, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(grads), grad_norm(grads))
    torch.library.opcheck(torch.ops.bigfast.grad_norm.default, (grads,))
    assert not grad_norm([g.requires_grad_() for g in grads]).requires_grad


@native
def test_threads():
    grads, before, got = tensors(torch.float32), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            got.append(grad_norm(grads))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*got)


@pytest.mark.parametrize(
    ("grads", "error", "words"),
    [
        ([torch.zeros(2), torch.zeros(2).int()], TypeError, r"grads\[1\] must be floating"),
        ([torch.zeros(2, 2).to_sparse()], ValueError, r"grads\[0\] must be dense"),
    ],
)
def test_bad_input(implementation, grads, error, words):
    with pytest.raises(error, match=words):
        grad_norm(grads)
