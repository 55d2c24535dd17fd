"""What is LAMB's alone; test_multi_tensor.py has what all steps must do."""

import pytest
import torch
from steps import DTYPES, FP32, STEPS, check_step, run, state

from bigfast.ops import adamw, lamb

LAMB = STEPS["lamb"]


@pytest.mark.parametrize(("dtype", "grad_dtype", "master"), DTYPES)
def test_equals_truth(implementation, dtype, grad_dtype, master):
    check_step(LAMB, state(LAMB, dtype, grad_dtype, master))


@pytest.mark.parametrize("step", [1, 1000, torch.tensor(7.0), torch.tensor(7)])
@pytest.mark.parametrize("maximize", [False, True])
def test_step_and_scale(implementation, step, maximize):
    for scale in (None, torch.tensor(0.25), torch.tensor([3.0])):
        check_step(LAMB, state(LAMB), step=step, grad_scale=scale, maximize=maximize)


@pytest.mark.parametrize("eps", [0.0, 1e-8])
@pytest.mark.parametrize("size", [1, 4095, 4097, 8193, 32767, 32768, 32769, 98_305])
def test_norms_over_runs_and_tasks(implementation, size, eps):
    if implementation == "triton" and size > 10_000:
        pytest.skip("lengths of C++; too large for the interpreter")
    check_step(LAMB, state(LAMB, shapes=[(size,), (3,)]), eps=eps)


def test_a_tensor_moves_by_lr_times_its_norm(implementation):
    for size in (5, 9_001 if implementation == "triton" else 70_000):
        lists = state(LAMB, shapes=[(size,)])
        before = lists[0][0].double()
        lamb(*lists, **LAMB.hyper)
        moved = (lists[0][0].double() - before).norm() / before.norm()
        assert float(moved) == pytest.approx(LAMB.hyper["lr"], rel=1e-5)


def test_a_ratio_of_one_where_a_norm_is_zero(implementation):
    """A parameter of zeros takes AdamW's step."""
    lists = state(LAMB, shapes=[(50,)])
    lists[0][0].zero_()
    got, want = (run(fn, lists, **LAMB.hyper) for fn in (lamb, adamw))
    torch.testing.assert_close(got[0][0], want[0][0], rtol=1e-5, atol=0)


def test_scaling_all_gradients_changes_nothing_but_eps(implementation):
    """From zero moments, without decay, the step is that of the gradients' direction alone."""
    for scale in (1e-6, 1e6):
        ends = []
        for factor in (1.0, scale):
            torch.manual_seed(5)
            lists = state(LAMB, FP32, shapes=[(9_001,)])
            for moment in lists[2:4]:
                moment[0].zero_()
            lists[1][0].mul_(factor)
            lamb(*lists, **(LAMB.hyper | {"eps": 0.0, "weight_decay": 0.0, "step": 1}))
            ends.append(lists[0][0])
        torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)
