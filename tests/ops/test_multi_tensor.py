"""What every optimizer step must do, and stochastic rounding."""

import copy
import math

import pytest
import torch
from steps import BF16, FP16, FP32, STEPS, check_step, run, state, wide
from suite import interpreted, native

from bigfast.ops.multi_tensor import round_stochastically


@pytest.fixture(params=sorted(STEPS))
def op(request):
    return STEPS[request.param]


def seed(number=1234567890123456789):
    return torch.tensor([number])


def same(got, want):
    return all(torch.equal(a, b) for x, y in zip(got, want) for a, b in zip(x or (), y or ()))


@pytest.mark.parametrize("grad_dtype", [FP16, FP32])
@pytest.mark.parametrize("master", [True, False])
def test_float16(implementation, op, grad_dtype, master):
    if implementation.startswith("cpp"):
        return  # has no fp16
    check_step(op, state(op, FP16, grad_dtype, master), grad_scale=torch.tensor(0.25))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_learning_rate_in_a_tensor(implementation, op, dtype):
    lists = state(op, BF16, FP32, True)
    want = run(op.fn, lists, **op.hyper)
    got = run(op.fn, lists, **(op.hyper | {"lr": torch.tensor(op.hyper["lr"], dtype=dtype)}))
    tensors = lambda lists: [t for ts in lists for t in ts or ()]
    for a, b in zip(tensors(got), tensors(want)):  # lr itself may have been rounded
        torch.testing.assert_close(a, b)


def test_infinite_gradients_are_skipped(implementation, op):
    """As torch.amp.GradScaler finds them: 1.0 skips the step, 0.0 and None do not."""
    lists = state(op, BF16, FP32, True)
    lists[1][-1][3] = torch.inf
    for found in (torch.tensor(1.0), torch.tensor([1.0])):
        assert same(run(op.fn, lists, **op.hyper, found_inf=found), lists)
    lists[1][-1][3] = 1.0
    want = run(op.fn, lists, **op.hyper)
    assert same(run(op.fn, lists, **op.hyper, found_inf=torch.tensor(0.0)), want)
    assert not same(want, lists)


def test_many_tensors_of_many_kinds(implementation, op):
    """Dtypes mixed; some tensors begin where 16 bytes do not, and some hold nothing."""
    sizes = [5, 0, 1030, 17, 0, 2050]
    lists = state(op, shapes=[(n,) for n in sizes])
    for i in (0, 2):
        lists[0][i], lists[1][i] = lists[0][i].bfloat16(), lists[1][i].bfloat16()
    off = torch.randn(sum(sizes) + 1)[1:].split(sizes)
    lists[1][3], lists[2][5] = off[3], off[5]
    want, got = run(op.ref, wide(lists), **op.hyper), run(op.fn, lists, **op.hyper)
    for x, y in zip(got, want):
        for a, b in zip(x or (), y or ()):
            eps = torch.finfo(a.dtype).eps
            torch.testing.assert_close(a.double(), b, rtol=2 * eps, atol=2 * eps)


@native
@pytest.mark.parametrize("op", ["lamb", "stable_adamw"], indirect=True)
def test_tensors_of_more_than_one_group(op):
    """What takes two passes takes them over about 2^20 elements at a time."""
    check_step(op, state(op, shapes=[(600_000,), (440_000,), (9_001,), (1_100_000,), (3,)]))


def test_triton_reads_by_16_bytes_what_begins_where_they_do():
    groups = interpreted("multi_tensor").groups
    lists = [[torch.randn(n + 1) for n in (8, 9)] for _ in range(4)]
    for moved in range(4):
        given = [[t[i == moved :] for t in ts] for i, ts in enumerate(lists)]
        (group,) = groups(*given)
        assert not group.options["ALIGNED"] and len(group.tensors) == 2
    assert groups(*lists)[0].options["ALIGNED"]


def test_tables_follow_the_tensors(implementation, op):
    """Other addresses, other sizes at the same addresses, other dtypes there."""
    storage = torch.randn(4, 64)
    for dtype, shape in ((FP32, (64,)), (FP32, (3,)), (BF16, (64,)), (BF16, (8,)), (FP32, (64,))):
        lists = [[row.view(dtype)[: shape[0]]] for row in storage[: len(op.names) - 1]]
        lists[0][0].normal_()
        lists[1][0].normal_()
        lists[2:] = [[torch.rand(shape)] for _ in lists[2:]] + [None]
        for _ in range(2):
            want = run(op.ref, lists, **op.hyper)
            before = lists[1][0].clone()
            op.fn(*lists, **op.hyper)
            for x, y in zip(lists, want):
                for a, b in zip(x or (), y or ()):
                    torch.testing.assert_close(a, b)
            assert torch.equal(before, lists[1][0])


def test_a_graph_reads_its_numbers_at_each_replay(implementation, op):
    """On a GPU: what a CUDA graph has captured follows lr, step, grad_scale and found_inf."""
    if implementation not in ("cpp", "triton") or torch.get_default_device().type != "cuda":
        pytest.skip("CUDA graphs are a GPU's")
    values = {"lr": 0.1, "grad_scale": 1.0, "found_inf": 0.0} | ({"step": 1.0} if op.counts else {})
    numbers = {name: torch.tensor(value) for name, value in values.items()}
    lists, kwargs = state(op, BF16, FP32, True), op.hyper | numbers
    captured = copy.deepcopy(lists)
    op.fn(*captured, **kwargs)  # compiles, and writes the tables
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        op.fn(*captured, **kwargs)
    for changed in ({"lr": 0.01}, {"grad_scale": 0.5}, {"step": 7.0}, {"found_inf": 1.0}):
        for name in changed.keys() & numbers.keys():
            numbers[name].fill_(changed[name])
        for to, source in zip(captured, lists):
            for a, b in zip(to, source):
                a.copy_(b)
        graph.replay()
        assert same(captured, run(op.fn, lists, **kwargs))


def test_gradients_are_not_written(implementation, op):
    lists = state(op)
    before = copy.deepcopy(lists[1])
    op.fn(*lists, **op.hyper, grad_scale=torch.tensor(0.5))
    assert all(torch.equal(a, b) for a, b in zip(lists[1], before))


def test_strides(implementation, op):
    """Gradients that are not contiguous; the reference serves parameters that are not."""
    lists = state(op, shapes=[(6, 4)])
    lists[1][0] = torch.randn(4, 6).T
    check_step(op, lists)


def test_parameters_that_are_not_contiguous(op):
    lists = [ts and [t.T for t in ts] for ts in state(op, shapes=[(6, 4)])]
    check_step(op, lists)


def test_extreme_values(implementation, op):
    lists = state(op, shapes=[(9,)])
    for moment in lists[2:-1]:
        moment[0].zero_()
    lists[1][0][:5] = torch.tensor([0.0, 1e-30, 1e18, -1e-18, 1e-12])
    first = {"step": 1} if op.counts else {}
    check_step(op, lists, **first)
    lists[1][0][3] = torch.nan
    params, _, m, *_ = run(op.fn, lists, **(op.hyper | first))
    assert m[0].isnan().tolist() == [i == 3 for i in range(9)]
    assert params[0].isnan().tolist() == [i == 3 and op is not STEPS["lion"] for i in range(9)]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_zero_gradients(implementation, op, weight_decay):
    lists = state(op)
    for tensors in lists[1:-1]:
        for tensor in tensors:
            tensor.zero_()
    check_step(op, lists, weight_decay=weight_decay)
    after = run(op.fn, lists, **(op.hyper | {"weight_decay": 0.0}))
    assert all(torch.equal(p, q) for p, q in zip(after[0], lists[0]))


def test_zero_parameters(implementation, op):
    lists = state(op, shapes=[(3, 11, 13), (9_001,)])  # an update alone is compared: not of one
    for param in lists[0]:
        param.zero_()
    check_step(op, lists)


def test_nothing_to_do(implementation, op):
    op.fn(*([] for _ in op.names), **op.hyper)


def test_saved_tensors_are_guarded(implementation, op):
    """Autograd notices that what it saved for backward has changed."""
    for which in (i for i, name in enumerate(op.names) if name != "grads"):
        lists = state(op, BF16, FP32, True, shapes=[(3, 3)])
        saved = lists[which][0].requires_grad_()
        loss = (saved * saved).sum()
        op.fn(*lists, **op.hyper)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def raw(op, lists, grad_scale=None, seed=None):
    """The native op and its arguments."""
    *tensors, masters = lists
    on_device = [*([torch.tensor(2.0)] if op.counts else []), torch.tensor(1e-3), grad_scale]
    numbers = [0.9, 0.99, *([1e-8] if op.counts else []), 0.01, False]
    native_op = getattr(torch.ops.bigfast, f"{op.fn.__name__}_").default
    return native_op, (*tensors, masters or [], *on_device, torch.zeros(1), seed, *numbers)


@native
def test_raw_op_bumps_versions(op):
    lists = state(op, shapes=[(3,), (4,)])
    native_op, args = raw(op, lists)
    native_op(*args)
    versions = {name: [t._version for t in ts or ()] for name, ts in zip(op.names, lists)}
    assert versions.pop("grads") == [0, 0] and versions.pop("masters") == []
    assert all(version == [1, 1] for version in versions.values())


@native
def test_opcheck(op):
    for dtype, master in ((FP32, False), (BF16, True), (BF16, False)):
        lists = state(op, dtype, dtype, master, shapes=[(3,), (4, 5)])
        native_op, args = raw(op, lists, torch.ones(1), None if master else seed())
        torch.library.opcheck(native_op, args)


@native
def test_compiles(op):
    torch.compiler.reset()  # all ops together exceed what it compiles of one torch wrapper
    step = {"step": torch.tensor(3.0)} if op.counts else {}
    compiled = torch.compile(op.fn, fullgraph=True, backend="aot_eager")
    for master, option in ((True, {}), (False, {"seed": seed()})):
        lists = state(op, BF16, FP32, master, shapes=[(3,), (4, 5)])
        kwargs = op.hyper | step | option
        assert same(run(compiled, lists, **kwargs), run(op.fn, lists, **kwargs))


@native
@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_same_bits_again_and_with_two_threads(op, dtype):
    lists, before, got = state(op, dtype, dtype), torch.get_num_threads(), []
    kwargs = op.hyper | ({"seed": seed()} if dtype == BF16 else {})
    try:
        for threads in (1, 1, 2):
            torch.set_num_threads(threads)
            got.append(run(op.fn, lists, **kwargs))
    finally:
        torch.set_num_threads(before)
    assert same(got[0], got[1]) and same(got[0], got[2])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"grads": []}, ValueError, "grads must have one tensor per parameter"),
        ({"exp_avgs": [torch.zeros(3)]}, ValueError, r"exp_avgs\[0\] must have its parameter's"),
        ({"masters": [torch.zeros(3)]}, ValueError, r"masters\[0\] must have its parameter's"),
        ({"grads": [torch.zeros(2, 2).to_sparse()]}, ValueError, r"grads\[0\] must be dense"),
        ({"params": [torch.zeros(2, 2).int()]}, TypeError, r"params\[0\] must be floating"),
        ({"grad_scale": torch.ones(2)}, ValueError, "grad_scale must be one number"),
        ({"found_inf": torch.ones(2)}, ValueError, "found_inf must be one number"),
        ({"lr": torch.ones(2)}, ValueError, "lr must be one number"),
        ({"step": 0}, ValueError, "step must be counted from 1, got 0"),
        ({"step": torch.ones(2)}, ValueError, "step must be one number"),
        ({"seed": torch.ones(1)}, ValueError, "seed must be one int64, got torch.float32"),
        ({"seed": torch.tensor([1, 2])}, ValueError, "seed must be one int64"),
        ({"seed": seed(), "masters": [torch.zeros(2, 2)]}, ValueError, "no use with masters"),
        (
            {"seed": seed(), "params": [torch.zeros(2, 2).half()]},
            ValueError,
            r"seed rounds bfloat16 parameters; params\[0\] is torch.float16",
        ),
    ],
)
def test_bad_input(implementation, op, change, error, words):
    if "step" in change and not op.counts:
        pytest.skip("takes no number of the step")
    good = {name: [torch.zeros(2, 2)] for name in op.names if name != "masters"} | op.hyper
    with pytest.raises(error, match=words):
        op.fn(**(good | change))


# -- stochastic rounding ---------------------------------------------------------------------------


@pytest.mark.parametrize("grad_dtype", [FP32, BF16])
def test_rounds_what_the_fp32_step_computes(implementation, op, grad_dtype):
    """Bit for bit: the fp32 step of the same numbers, rounded by the reference."""
    lists = state(op, BF16, grad_dtype)
    lists[1][-1][5:6] = torch.tensor([0x7FFFFFFF], dtype=torch.int32).view(FP32)  # the last NaN
    lists[0][-1][7:10] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    exact = run(op.fn, [[p.float() for p in lists[0]], *lists[1:]], **op.hyper)
    got = run(op.fn, lists, **op.hyper, seed=seed())
    for i, (p, unrounded) in enumerate(zip(got[0], exact[0])):
        want = round_stochastically(unrounded, seed(), i)
        assert p.dtype == BF16 and torch.equal(p.isnan(), want.isnan())
        assert torch.equal(p.nan_to_num(0.0), want.nan_to_num(0.0))
    for name, moments, same_moments in zip(op.names[2:-1], got[2:-1], exact[2:-1]):
        for a, b in zip(moments, same_moments):
            assert torch.equal(a.nan_to_num(), b.nan_to_num()), name


@pytest.mark.parametrize("op", ["adamw", "lion", "stable_adamw"], indirect=True)
def test_same_bits_as_the_reference(implementation, op):
    """Steps of plus and minus lr = 2^-12, which every implementation computes exactly."""
    lists = state(op, BF16, BF16)
    hyper = {"lr": 2**-12, "beta1": 0.0, "beta2": 0.0, "weight_decay": 0.0}
    kwargs = op.hyper | hyper | ({"eps": 0.0} if op.counts else {}) | {"seed": seed(-5)}
    got, want = run(op.fn, lists, **kwargs), run(op.ref, lists, **kwargs)
    assert same(got[:1], want[:1]) and not same(got[:1], lists[:1])
    assert same(got[2:3], [[g.float() for g in lists[1]]])  # from any m, a rate of 1 gives g itself


def test_seed_leaves_fp32_parameters_alone(implementation, op):
    lists = state(op)
    assert same(run(op.fn, lists, **op.hyper, seed=seed()), run(op.fn, lists, **op.hyper))


@pytest.mark.parametrize("share", [1 / 65536, 0.25, 0.6, 1 - 1 / 65536])
def test_rounding_is_right_on_average(share):
    """With N draws, Hoeffding: the mean is off by more than t with odds of 2 exp(-2 N t^2)."""
    count, odds = 1 << 18, 1e-9
    bits = (0x3F80 << 16) + round(65536 * share)  # between 1 and the next bf16, 1 + 2^-7
    p = torch.full((count,), bits, dtype=torch.int32).view(FP32)
    rounded = round_stochastically(p, seed(), 0).float()
    assert set(rounded.unique().tolist()) <= {1.0, 1 + 2**-7}
    ups = (rounded > 1).double()
    bound = math.sqrt(math.log(2 / odds) / (2 * count))
    assert abs(float(ups.mean()) - round(65536 * share) / 65536) <= bound
    assert torch.equal(round_stochastically(-p, seed(), 0), -rounded.bfloat16())
    if share == 0.25:  # steps and tensors agree as often as chance has it
        for other in (round_stochastically(p, seed(2), 0), round_stochastically(p, seed(), 1)):
            both = (ups * (other.float() > 1)).mean()
            assert abs(float(both) - share * share) <= bound


def test_rounding_keeps_what_is_exact_and_what_is_no_number():
    p = torch.cat((torch.randn(1000).bfloat16().float(), torch.tensor([0.0, -0.0, torch.inf])))
    assert torch.equal(round_stochastically(p, seed(), 0), p.bfloat16())
    patterns = torch.tensor([0x7F800001, 0x7FFFFFFF, -1, 0x7FC00000], dtype=torch.int32)
    assert round_stochastically(patterns.view(FP32), seed(), 0).isnan().all()


def test_elements_far_apart_have_numbers_of_their_own():
    """Group 2^32 + g is not group g: its row differs."""
    from bigfast.ops.dropout import philox

    groups = torch.tensor([3, 3 + (1 << 32)])
    low, high = philox(groups & 0xFFFFFFFF, groups >> 32, torch.zeros_like(groups), seed())
    assert not torch.equal(low, high)


def test_small_steps_add_up(implementation, op):
    """Updates below half a unit in the last place: lost to nearest, kept on average here."""
    count, steps = 1 << 10, 64
    hyper = op.hyper | {"lr": 2**-12, "beta1": 0.0, "beta2": 0.0, "weight_decay": 0.0}
    if op.counts:
        hyper["eps"] = 0.0
    ends = {}
    for kind in ("nearest", "stochastic"):
        lists = state(op, BF16, BF16, shapes=[(count,)])
        lists[0][0].fill_(1.0)
        lists[1][0].fill_(-1.0)
        for step in range(steps):
            now = {"step": step + 1} if op.counts else {}
            chance = {"seed": seed(step)} if kind == "stochastic" else {}
            op.fn(*lists, **(hyper | now | chance))
        ends[kind] = lists[0][0].double()
    assert (ends["nearest"] == 1).all()
    # LAMB's steps are shares of what it has reached: (1 + lr)^steps.
    want = (1 + 2**-12) ** steps if op is STEPS["lamb"] else 1 + steps * 2**-12
    # Each step moves by 0 or 2^-7: `steps` independent draws of variance at most 2^-14 / 4.
    deviation = math.sqrt(steps * 2**-14 / 4 / count)
    assert abs(float(ends["stochastic"].mean()) - want) < 6 * deviation


def test_betas_of_zero_forget_all(implementation, op):
    """Large moments, too: none of them is left in a difference."""
    lists = state(op, shapes=[(9,)])
    lists[2][0].fill_(1e9)
    _, (grad,), (m,), *_ = run(op.fn, lists, **op.hyper | {"beta1": 0.0, "beta2": 0.0})
    assert torch.equal(m, grad)
