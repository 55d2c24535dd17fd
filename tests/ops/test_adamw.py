import copy

import pytest
import torch
from check import check
from suite import native

from bigfast.ops import adamw, adamw_ref, registry

SHAPES = [(), (1,), (0,), (7, 5), (3, 11, 13), (40_001,)]  # the last is more than one task
BF16, FP32 = torch.bfloat16, torch.float32
HYPER = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1}


def state(dtype=FP32, grad_dtype=FP32, master=False, shapes=SHAPES):
    """params, grads, exp_avgs, exp_avg_sqs, masters after some steps."""
    params = [torch.randn(s).to(dtype) for s in shapes]
    grads = [torch.randn(s).to(grad_dtype) for s in shapes]
    exp_avgs = [torch.randn(s) for s in shapes]
    exp_avg_sqs = [torch.rand(s) for s in shapes]
    masters = [p.float() + 1e-4 * torch.randn(p.shape) for p in params] if master else None
    return params, grads, exp_avgs, exp_avg_sqs, masters


def wide(lists):
    return [None if ts is None else [t.double() for t in ts] for ts in lists]


def run(fn, lists, **kwargs):
    lists = copy.deepcopy(lists)
    assert fn(*lists, **(HYPER | kwargs)) is None
    return lists


def check_step(lists, **kwargs):
    ours, plain = run(adamw, lists, **kwargs), run(adamw_ref, lists, **kwargs)
    truth = run(adamw_ref, wide(lists), **kwargs)
    for name, *lists_ in zip(("param", "grad", "m", "v", "master"), ours, plain, truth):
        for i, (o, p, t) in enumerate(zip(*(ts or () for ts in lists_))):
            if o.numel():
                check(o, p, t, f"{name} {i}")


@pytest.mark.parametrize(
    ("dtype", "grad_dtype", "master"),
    [
        (FP32, FP32, False),
        (FP32, BF16, False),
        (BF16, BF16, True),
        (BF16, FP32, True),
        (BF16, BF16, False),
    ],
)
def test_equals_truth(implementation, dtype, grad_dtype, master):
    check_step(state(dtype, grad_dtype, master), step=3)


@pytest.mark.parametrize("step", [1, 1000, torch.tensor(7.0), torch.tensor(7)])
@pytest.mark.parametrize("maximize", [False, True])
def test_step_and_scale(implementation, step, maximize):
    for scale in (None, torch.tensor(0.25), torch.tensor([3.0])):
        check_step(state(), step=step, grad_scale=scale, maximize=maximize)


def test_equals_torch(implementation):
    """Ten steps of torch.optim.AdamW."""
    params, *_ = state(shapes=SHAPES[3:])
    theirs = [p.clone().requires_grad_() for p in params]
    optimizer = torch.optim.AdamW(
        theirs, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1, foreach=False
    )
    m, v = ([torch.zeros_like(p) for p in params] for _ in range(2))
    for step in range(1, 11):
        grads = [torch.randn_like(p) for p in params]
        for p, g in zip(theirs, grads):
            p.grad = g.clone()
        optimizer.step()
        adamw(params, grads, m, v, **HYPER, step=step)
    for p, q in zip(params, theirs):
        torch.testing.assert_close(p, q.detach(), rtol=1e-5, atol=2e-6)


def test_gradients_are_not_written(implementation):
    lists = state()
    before = copy.deepcopy(lists[1])
    adamw(*lists, **HYPER, step=1, grad_scale=torch.tensor(0.5))
    assert all(torch.equal(a, b) for a, b in zip(lists[1], before))


def test_strides(implementation):
    """Gradients that are not contiguous; the reference serves parameters that are not."""
    lists = state(shapes=[(6, 4)])
    lists[1][0] = torch.randn(4, 6).T
    check_step(lists, step=2)


def test_parameters_that_are_not_contiguous():
    lists = [ts and [t.T for t in ts] for ts in state(shapes=[(6, 4)])]
    check_step(lists, step=2)


def test_extreme_values(implementation):
    params, grads, m, v, _ = state(shapes=[(9,)])
    m[0].zero_()
    v[0].zero_()
    grads[0][:5] = torch.tensor([0.0, 1e-30, 1e18, -1e-18, 1e-12])
    check_step((params, grads, m, v, None), step=1)
    grads[0][3] = torch.nan
    after = run(adamw, (params, grads, m, v, None), step=1)
    assert after[0][0].isnan().tolist() == [i == 3 for i in range(9)]


def test_nothing_to_do(implementation):
    adamw([], [], [], [], **HYPER, step=1)


def test_torch_serves_where_it_can():
    lists = state()
    want = run(adamw, lists, step=3)
    with registry.backend("torch", op="adamw"):
        got = run(adamw, lists, step=3)
        for a, b in zip(got[0], want[0]):
            torch.testing.assert_close(a, b)
        with pytest.raises(ValueError, match="divides by its grad_scale"):
            adamw(*lists, **HYPER, step=3, grad_scale=torch.tensor(0.5))


def test_saved_tensors_are_guarded(implementation):
    """Autograd notices that what it saved for backward has changed."""
    for which in (0, 2, 3, 4):
        lists = state(BF16, FP32, True, shapes=[(3, 3)])
        saved = lists[which][0].requires_grad_()
        loss = (saved * saved).sum()
        adamw(*lists, **HYPER, step=1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@native
def test_raw_op_bumps_versions():
    lists = state(shapes=[(3,), (4,)])
    args = (*lists[:4], [], torch.tensor(1.0), None, 1e-3, 0.9, 0.99, 1e-8, 0.0, False)
    torch.ops.bigfast.adamw_(*args)
    assert [t._version for ts in (lists[0], *lists[2:4]) for t in ts] == [1] * 6
    assert [g._version for g in lists[1]] == [0, 0]


@native
def test_opcheck():
    for dtype, master in ((FP32, False), (BF16, True)):
        params, grads, m, v, masters = state(dtype, dtype, master, shapes=[(3,), (4, 5)])
        args = (params, grads, m, v, masters or [], torch.tensor(2.0), torch.ones(1))
        args += (1e-3, 0.9, 0.99, 1e-8, 0.01, False)
        torch.library.opcheck(torch.ops.bigfast.adamw_.default, args)


@native
def test_compiles():
    lists = state(BF16, FP32, True, shapes=[(3,), (4, 5)])
    compiled = torch.compile(adamw, fullgraph=True, backend="aot_eager")
    step = torch.tensor(3.0)
    for a, b in zip(run(compiled, lists, step=step), run(adamw, lists, step=step)):
        assert all(torch.equal(x, y) for x, y in zip(a, b))


@native
def test_threads():
    lists, before, got = state(), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            got.append(run(adamw, lists, step=3)[0])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*got))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"grads": []}, ValueError, "grads must have one tensor per parameter"),
        ({"exp_avgs": [torch.zeros(3)]}, ValueError, r"exp_avgs\[0\] must have its parameter's"),
        ({"masters": [torch.zeros(3)]}, ValueError, r"masters\[0\] must have its parameter's"),
        ({"grads": [torch.zeros(2, 2).to_sparse()]}, ValueError, r"grads\[0\] must be dense"),
        ({"params": [torch.zeros(2, 2).int()]}, TypeError, r"params\[0\] must be floating"),
        ({"grad_scale": torch.ones(2)}, ValueError, "grad_scale must be one number"),
        ({"step": 0}, ValueError, "step must be counted from 1, got 0"),
    ],
)
def test_bad_input(implementation, change, error, words):
    names = ("params", "grads", "exp_avgs", "exp_avg_sqs")
    good = {name: [torch.zeros(2, 2)] for name in names} | HYPER | {"step": 1}
    with pytest.raises(error, match=words):
        adamw(**(good | change))
