"""What is AdamW's alone; test_fused.py has what all optimizers share."""

import copy

import pytest
import torch
from check import check

from bigfast.ops import registry
from bigfast.optim import AdamW


@pytest.fixture(params=["default", "reference"], autouse=True)
def served_by(request):
    """The step as chosen here, and by the reference."""
    if request.param == "default":
        yield
    else:
        with registry.backend("reference"):
            yield


def model(dtype=torch.float32) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.GELU(), torch.nn.Linear(9, 3)).to(
        dtype
    )


def train(net, optimizer, steps, dtype=torch.float32, seed=0, **kwargs):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(8, 6, generator=generator).to(dtype)
        optimizer.zero_grad()
        (net(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step(**kwargs)


def check_same(a, b):
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"maximize": True, "weight_decay": 0.3, "eps": 1e-6}])
def test_steps_as_torch(options):
    ours = model()
    theirs = copy.deepcopy(ours)
    train(ours, AdamW(ours.parameters(), lr=1e-2, **options), 10)
    train(theirs, torch.optim.AdamW(theirs.parameters(), lr=1e-2, **options), 10)
    check_same(ours, theirs)


def test_state_dicts_of_torch_and_ours_exchange():
    """Five steps with one, then five with the other: as ten with either."""
    straight = model()
    start = copy.deepcopy(straight)
    optimizer = torch.optim.AdamW(straight.parameters(), lr=1e-2)
    train(straight, optimizer, 5)
    train(straight, optimizer, 5, seed=1)
    for first, second in ((AdamW, torch.optim.AdamW), (torch.optim.AdamW, AdamW)):
        net = copy.deepcopy(start)
        optimizer = first(net.parameters(), lr=1e-2)
        train(net, optimizer, 5)
        other = second(net.parameters(), lr=7.0)  # the state brings its own
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert set(other.state_dict()["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
        train(net, other, 5, seed=1)
        check_same(net, straight)


@pytest.mark.parametrize("grad_dtype", [torch.bfloat16, torch.float32])
def test_master_weights(grad_dtype):
    """Steps far below a bf16 parameter's resolution add up in its master; state survives a dict."""
    param = torch.nn.Parameter(torch.ones(5, dtype=torch.bfloat16))
    param.grad_dtype = grad_dtype
    optimizer = AdamW([param], lr=1e-4, weight_decay=0.0)
    wide = torch.nn.Parameter(torch.ones(5))
    theirs = torch.optim.AdamW([wide], lr=1e-4, weight_decay=0.0)
    for step in range(60):
        if step == 30:
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer = AdamW([param], lr=1e-4, weight_decay=0.0)
            optimizer.load_state_dict(saved)
        (param.float() * torch.arange(1.0, 6.0)).sum().backward()
        wide.grad = param.grad.float()
        assert param.grad.dtype == grad_dtype
        optimizer.step()
        theirs.step()
        optimizer.zero_grad()
    state = optimizer.state[param]
    assert {k: v.dtype for k, v in state.items()} == dict.fromkeys(
        ("step", "exp_avg", "exp_avg_sq", "master"), torch.float32
    )
    check(state["master"], wide, 1 - 60e-4 * torch.ones(5).double())
    assert torch.equal(param, state["master"].bfloat16())


def test_without_master_weights():
    param = torch.nn.Parameter(torch.ones(5, dtype=torch.bfloat16))
    optimizer = AdamW([param], lr=1e-2, master_weights=False)
    param.grad = torch.ones_like(param)
    optimizer.step()
    assert "master" not in optimizer.state[param] and (param < 1).all()


def test_torch_state_of_bf16_parameters_gets_masters():
    net = model(torch.bfloat16)
    theirs = torch.optim.AdamW(net.parameters(), lr=1e-2)
    train(net, theirs, 3, torch.bfloat16)
    ours = AdamW(net.parameters(), lr=1e-2)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    train(net, ours, 1, torch.bfloat16)
    for param in net.parameters():
        state = ours.state[param]
        assert state["exp_avg"].dtype == state["master"].dtype == torch.float32
        assert float(state["step"]) == 4
    assert ours.param_groups[0]["master_weights"] is None


def test_groups_scheduler_and_late_parameters():
    """Options per group, a scheduler of torch's, a gradient that comes late: as torch."""

    def fit(cls):
        torch.manual_seed(1)
        net = model()
        groups = [
            {"params": [net[0].weight, net[2].weight], "weight_decay": 0.1, "lr": 3e-3},
            {"params": [net[0].bias]},
        ]
        optimizer = cls(groups, lr=1e-2, weight_decay=0.0)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=6)
        train(net, optimizer, 2)
        optimizer.add_param_group({"params": [net[2].bias], "betas": (0.8, 0.9)})
        for seed in range(3):
            train(net, optimizer, 1, seed=seed)
            scheduler.step()
        net[0].weight.requires_grad_(False)  # keeps its gradient of None from here on
        train(net, optimizer, 1)
        return net

    check_same(fit(AdamW), fit(torch.optim.AdamW))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eps": -1e-8}, "eps must be"),
        ({"amsgrad": True}, "amsgrad=True is not supported"),
        ({"foreach": True}, "foreach=True is not supported"),
        ({"capturable": True}, "capturable=True is not supported"),
        ({"differentiable": True}, "differentiable=True is not supported"),
        ({"fused": False}, "fused=False is not supported"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        AdamW([torch.nn.Parameter(torch.zeros(2))], **options)


def test_amsgrad_state_is_refused():
    net = model()
    theirs = torch.optim.AdamW(net.parameters(), amsgrad=True)
    with pytest.raises(ValueError, match="amsgrad=True"):
        AdamW(net.parameters()).load_state_dict(theirs.state_dict())
