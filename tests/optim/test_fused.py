"""What all optimizers share; test_optimizer_adamw.py has what is AdamW's alone."""

import copy

import pytest
import torch

from bigfast.ops import registry
from bigfast.optim import LAMB, AdamW, Lion, StableAdamW

CLASSES = [AdamW, LAMB, Lion, StableAdamW]


@pytest.fixture(params=["default", "reference"], autouse=True)
def served_by(request):
    """The step as chosen here, and by the reference."""
    if request.param == "default":
        yield
    else:
        with registry.backend("reference"):
            yield


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


def model(dtype=torch.float32):
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.GELU(), torch.nn.Linear(9, 3))
    return net.to(dtype)


def train(net, optimizer, steps, seed=0, **kwargs):
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        x = torch.randn(8, 6, generator=generator).to(next(net.parameters()).dtype)
        optimizer.zero_grad()
        loss = (net(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step(**kwargs)
        losses.append(loss.item())
    return losses


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rounds", [False, True])
def test_learns(cls, dtype, rounds):
    net = model(dtype)
    optimizer = cls(net.parameters(), lr=1e-2, stochastic_rounding=rounds)
    losses = train(net, optimizer, 150)
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    for param in net.parameters():
        state = optimizer.state[param]
        master = {"master"} if dtype == torch.bfloat16 and not rounds else set()
        assert state.keys() == {"step", *cls.moments} | master
        assert {value.dtype for value in state.values()} == {torch.float32}
        assert float(state["step"]) == 150


@pytest.mark.parametrize("options", [{}, {"stochastic_rounding": True}])
def test_a_state_dict_continues_bit_for_bit(cls, options):
    whole, part = model(torch.bfloat16), model(torch.bfloat16)
    optimizer = cls(whole.parameters(), lr=1e-2, **options)
    torch.manual_seed(7)
    train(whole, optimizer, 3)
    torch.manual_seed(8)
    train(whole, optimizer, 3, seed=1)
    first = cls(part.parameters(), lr=1e-2, **options)
    torch.manual_seed(7)
    train(part, first, 3)
    second = cls(part.parameters(), lr=7.0)  # the state brings its own
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    torch.manual_seed(8)
    train(part, second, 3, seed=1)
    assert same(whole, part)
    for p, q in zip(whole.parameters(), part.parameters()):
        a, b = optimizer.state[p], second.state[q]
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_copies(cls):
    net = model()
    optimizer = cls(net.parameters(), lr=1e-2)
    train(net, optimizer, 2)
    twin_net, twin = copy.deepcopy((net, optimizer))
    train(net, optimizer, 2, seed=5)
    train(twin_net, twin, 2, seed=5)
    assert same(net, twin_net)


def test_closure_and_tensor_lr(cls):
    param = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = cls([param], lr=torch.tensor(0.125), weight_decay=0.0)

    def closure():
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 9.0
    torch.testing.assert_close(param.detach(), torch.tensor([2.875]), rtol=1e-5, atol=0)


def test_grad_scale_and_maximize(cls):
    ours, theirs = model(), model()
    train(ours, cls(ours.parameters(), weight_decay=0.1), 1, grad_scale=torch.tensor(0.25))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 6, generator=generator)
    (-0.25 * (theirs(x) - x.sum(1, keepdim=True)).square().mean()).backward()
    cls(theirs.parameters(), weight_decay=0.1, maximize=True).step()
    for p, q in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


def test_the_seed_of_rounding_is_torchs(cls):
    """manual_seed fixes it; nothing else draws; each step and each group have their own."""
    nets = [model(torch.bfloat16) for _ in range(3)]
    for net, seed in zip(nets, (4, 4, 5)):
        optimizer = cls(net.parameters(), lr=1e-3, stochastic_rounding=True)
        torch.manual_seed(seed)
        train(net, optimizer, 2)
    assert same(nets[0], nets[1]) and not same(nets[0], nets[2])
    wide, before = model(), torch.get_rng_state()
    train(wide, cls(wide.parameters(), stochastic_rounding=True), 1)
    train(nets[0], cls(nets[0].parameters()), 1)
    assert torch.equal(torch.get_rng_state(), before)
    params = [torch.nn.Parameter(torch.ones(4096, dtype=torch.bfloat16)) for _ in range(2)]
    for param in params:
        param.grad = torch.full_like(param, -1.0)
    groups = [{"params": [param]} for param in params]
    cls(groups, lr=2**-9, weight_decay=0.0, stochastic_rounding=True).step()
    assert 0 < (params[0] != params[1]).sum() < 4096


def test_small_updates_are_right_on_average(cls):
    """2^-11 of a bf16 1, a quarter of what rounding to nearest keeps, 32 times."""
    param = torch.nn.Parameter(torch.ones(1 << 14, dtype=torch.bfloat16))
    options = {"always_adapt": True} if cls is LAMB else {}
    optimizer = cls([param], lr=2**-11, weight_decay=0.0, stochastic_rounding=True, **options)
    for _ in range(32):
        param.grad = torch.full_like(param, -1.0)
        optimizer.step()
    assert optimizer.state[param].keys() == {"step", *cls.moments}
    assert float(param.detach().float().mean()) == pytest.approx(1 + 32 * 2**-11, abs=1e-3)


def test_bad_options(cls):
    param = torch.nn.Parameter(torch.zeros(2))
    for options, words in (
        ({"lr": -1.0}, "lr must be not negative, got -1.0"),
        ({"betas": (1.0, 0.9)}, r"betas\[0\] must be in \[0, 1\), got 1.0"),
        ({"betas": (0.9, -0.1)}, r"betas\[1\] must be"),
        ({"weight_decay": -0.1}, "weight_decay must be"),
        ({"stochastic_rounding": True, "master_weights": True}, "exclude each other"),
    ):
        with pytest.raises(ValueError, match=words):
            cls([param], **options)
    table = torch.nn.Embedding(5, 3, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=f"{cls.__name__} does not take sparse"):
        cls(table.parameters()).step()
    half = torch.nn.Parameter(torch.zeros(2).half())
    half.grad = torch.ones_like(half)
    with pytest.raises(ValueError, match="seed rounds bfloat16"):
        cls([half], stochastic_rounding=True).step()


def test_lamb_adapts_what_is_decayed_unless_told_otherwise():
    def moved(**options):
        param = torch.nn.Parameter(torch.full((4,), 3.0))
        param.grad = torch.ones_like(param)
        LAMB([param], lr=0.01, **options).step()
        return 3.0 - float(param[0].detach())

    assert moved(weight_decay=0.0) == pytest.approx(0.01, rel=1e-4)
    assert moved(weight_decay=0.0, always_adapt=True) == pytest.approx(0.03, rel=1e-4)
    assert moved(weight_decay=0.1) == pytest.approx(0.03, rel=1e-4)


def test_lion_has_one_moment():
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.tensor([2.0, -3.0, 0.0])
    optimizer = Lion([param], lr=0.5, betas=(0.5, 0.75))
    optimizer.step()
    assert param.tolist() == [0.5, 1.5, 1.0]
    assert optimizer.state[param]["exp_avg"].tolist() == [0.5, -0.75, 0.0]
