"""What is StableAdamW's alone; test_multi_tensor.py has what all steps must do."""

import pytest
import torch
from steps import DTYPES, INTERPRETED_SHAPES, STEPS, check_step, state

from bigfast.ops import stable_adamw

STABLE = STEPS["stable_adamw"]


@pytest.mark.parametrize(("dtype", "grad_dtype", "master"), DTYPES)
def test_equals_truth(implementation, dtype, grad_dtype, master):
    check_step(STABLE, state(STABLE, dtype, grad_dtype, master))


@pytest.mark.parametrize("step", [1, 1000, torch.tensor(7.0), torch.tensor(7)])
@pytest.mark.parametrize("maximize", [False, True])
def test_step_and_scale(implementation, step, maximize):
    for scale in (None, torch.tensor(0.25), torch.tensor([3.0])):
        check_step(STABLE, state(STABLE), step=step, grad_scale=scale, maximize=maximize)


@pytest.mark.parametrize("size", [1, 4095, 4097, 8193, 32767, 32768, 32769, 98_305])
def test_means_over_runs_and_tasks(implementation, size):
    if implementation == "triton" and size > 10_000:
        pytest.skip("lengths of C++; too large for the interpreter")
    check_step(STABLE, state(STABLE, shapes=[(size,), (3,)]), step=100)


@pytest.mark.parametrize("eps", [0.5, 1e-3])
def test_eps_bounds_the_mean(implementation, eps):
    check_step(STABLE, state(STABLE), step=100, eps=eps)


def test_a_step_of_gradients_that_grew_is_shorter(implementation):
    """v = 1 and g = 100: v becomes 1 + 0.01 9999, rms 100 / sqrt(101), and lr as much smaller."""
    lists = [[torch.zeros(9)], [torch.full((9,), 100.0)], [torch.zeros(9)], [torch.ones(9)], None]
    hyper = {"lr": 1.0, "beta1": 0.0, "beta2": 0.99, "eps": 0.0, "weight_decay": 0.0}
    stable_adamw(*lists, **hyper, step=100_000)
    v = 1 + 0.01 * 9999
    rms = 100 / v**0.5
    torch.testing.assert_close(lists[0][0], torch.full((9,), -100 / v**0.5 / rms))


def test_equals_adamw_of_torch_where_nothing_is_clipped(implementation):
    """Ten steps: moments kept unbiased are AdamW's, corrected. The gradients shrink, so that rms
    stays below 1."""
    params, *_ = state(STABLE, shapes=INTERPRETED_SHAPES[3:])
    theirs = [p.clone().requires_grad_() for p in params]
    optimizer = torch.optim.AdamW(
        theirs, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1, foreach=False
    )
    m, v = ([torch.zeros_like(p) for p in params] for _ in range(2))
    hyper = {name: value for name, value in STABLE.hyper.items() if name != "step"}
    for step in range(1, 11):
        grads = [torch.randn_like(p).sign() * 0.9**step for p in params]
        for p, g in zip(theirs, grads):
            p.grad = g.clone()
        optimizer.step()
        stable_adamw(params, grads, m, v, **hyper, step=step)
    for p, q in zip(params, theirs):
        torch.testing.assert_close(p, q.detach(), rtol=1e-5, atol=2e-6)
