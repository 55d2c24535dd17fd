"""What is AdamW's alone; test_multi_tensor.py has what all steps must do."""

import pytest
import torch
from steps import DTYPES, INTERPRETED_SHAPES, STEPS, check_step, run, state

from bigfast.ops import adamw, registry

ADAMW = STEPS["adamw"]
HYPER = {name: value for name, value in ADAMW.hyper.items() if name != "step"}


@pytest.mark.parametrize(("dtype", "grad_dtype", "master"), DTYPES)
def test_equals_truth(implementation, dtype, grad_dtype, master):
    check_step(ADAMW, state(ADAMW, dtype, grad_dtype, master))


@pytest.mark.parametrize("step", [1, 1000, torch.tensor(7.0), torch.tensor(7)])
@pytest.mark.parametrize("maximize", [False, True])
def test_step_and_scale(implementation, step, maximize):
    for scale in (None, torch.tensor(0.25), torch.tensor([3.0])):
        check_step(ADAMW, state(ADAMW), step=step, grad_scale=scale, maximize=maximize)


def test_equals_torch(implementation):
    """Ten steps of torch.optim.AdamW."""
    params, *_ = state(ADAMW, shapes=INTERPRETED_SHAPES[3:])
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


def test_torch_serves_where_it_can():
    lists = state(ADAMW)
    want = run(adamw, lists, **ADAMW.hyper)
    with registry.backend("torch", op="adamw"):
        got = run(adamw, lists, **ADAMW.hyper)
        for a, b in zip(got[0], want[0]):
            torch.testing.assert_close(a, b)
        with pytest.raises(ValueError, match="divides by its grad_scale"):
            adamw(*lists, **ADAMW.hyper, grad_scale=torch.tensor(0.5))
        with pytest.raises(ValueError, match="rounds to nearest"):
            adamw(*lists, **ADAMW.hyper, seed=torch.tensor([1]))
