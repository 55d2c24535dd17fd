"""What is Lion's alone; test_multi_tensor.py has what all steps must do."""

import pytest
import torch
from steps import DTYPES, STEPS, check_step, run, state

from bigfast.ops import lion

LION = STEPS["lion"]


@pytest.mark.parametrize(("dtype", "grad_dtype", "master"), DTYPES)
def test_equals_truth(implementation, dtype, grad_dtype, master):
    check_step(LION, state(LION, dtype, grad_dtype, master))


@pytest.mark.parametrize("maximize", [False, True])
def test_scale(implementation, maximize):
    for scale in (None, torch.tensor(0.25), torch.tensor([3.0])):
        check_step(LION, state(LION), grad_scale=scale, maximize=maximize)


def test_one_step_by_hand(implementation):
    """c = 0.5 m + 0.5 g has the signs - 0 + and none; powers of two, so that all is exact."""
    grads, exp_avgs = torch.tensor([-4.0, 2.0, 1.0, torch.nan]), torch.tensor([2.0, -2.0, 1.0, 1.0])
    lists = [[torch.ones(4)], [grads], [exp_avgs]]
    hyper = {"lr": 0.25, "beta1": 0.5, "beta2": 0.75, "weight_decay": 0.5}
    params, _, exp_avgs, _ = run(lion, [*lists, None], **hyper)
    assert params[0].tolist() == [0.875 + 0.25, 0.875, 0.875 - 0.25, 0.875]
    assert exp_avgs[0][:3].tolist() == [0.5, -1.0, 1.0] and exp_avgs[0][3].isnan()
