import sys

import pytest
import torch
import torch.nn.functional as F
from check import check, check_op
from suite import (
    check_checkpoints,
    check_compiles,
    check_double_backward_raises,
    check_functorch,
    check_threads,
    leaf,
    native,
)

from bigfast.ops import (
    cross_entropy_ref,
    linear_cross_entropy,
    linear_cross_entropy_ref,
    registry,
)

MODULE = sys.modules["bigfast.ops.linear_cross_entropy"]  # its name is the function's, too
DTYPES = [torch.float32, torch.bfloat16]
# Rows, features, classes: one of all; odd; one block of columns and more.
SHAPES = [(1, 1, 1), (29, 13, 37), (67, 24, 131), (20, 33, 2100)]


def plain(input, linear_weight, target, *, linear_bias=None, reduction="mean", **options):
    """What a torch user writes, with the loss in fp32."""
    logits = F.linear(input, linear_weight, linear_bias).float()
    losses = cross_entropy_ref(
        logits.flatten(0, -2), target.flatten(), reduction=reduction, **options
    )
    return losses.view(target.shape) if reduction == "none" else losses


def as_torch(f):
    """f with its loss in the logits' dtype, as torch's is: a mean of errors of bf16 logits is a
    random number, in which nothing is learnt from a factor of two between ours and plain's."""

    def run(input, *args, **kwargs):
        loss = f(input, *args, **kwargs)
        return loss.to(input.dtype) if kwargs.get("reduction") != "none" else loss

    return run


def labels(*shape: int, classes: int, ignored: float = 0.5) -> torch.Tensor:
    target = torch.randint(0, classes, shape)
    target[torch.rand(shape) < ignored] = -100
    target.view(-1)[-1] = classes - 1
    return target


def arguments(rows, features, classes, dtype=torch.float32, ignored=0.5):
    return (
        leaf(rows, features, dtype=dtype),
        leaf(classes, features, dtype=dtype, scale=features**-0.5),
        labels(rows, classes=classes, ignored=ignored),
    )


@pytest.fixture
def small_chunks(monkeypatch):
    """Several chunks, the last one smaller, from rows that would make one."""
    monkeypatch.setattr(MODULE, "_CHUNK_BYTES", 0)
    monkeypatch.setattr(MODULE, "_CHUNK_ROWS", 7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_truth(implementation, shape, dtype, reduction, bias):
    extra = {"linear_bias": leaf(shape[-1], dtype=dtype)} if bias else {}
    check_op(
        as_torch(linear_cross_entropy), as_torch(linear_cross_entropy_ref),
        *arguments(*shape, dtype=dtype), plain=as_torch(plain), reduction=reduction, **extra,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_label_smoothing_and_z_loss(implementation, small_chunks, dtype, reduction):
    extra = {"label_smoothing": 0.2, "z_loss": 1e-2, "linear_bias": leaf(40, dtype=dtype)}
    check_op(
        as_torch(linear_cross_entropy), as_torch(linear_cross_entropy_ref),
        *arguments(20, 8, 40, dtype=dtype), plain=as_torch(plain), reduction=reduction, **extra,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ignored", [0.0, 0.4])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_chunks(implementation, small_chunks, dtype, ignored, reduction):
    check_op(
        as_torch(linear_cross_entropy), as_torch(linear_cross_entropy_ref),
        *arguments(61, 24, 300, dtype=dtype, ignored=ignored), plain=as_torch(plain),
        linear_bias=leaf(300, dtype=dtype), reduction=reduction,
    )  # fmt: skip


def test_rows_of_several_blocks(implementation):
    """What one program of Triton does not hold at once."""
    check_op(
        as_torch(linear_cross_entropy), as_torch(linear_cross_entropy_ref),
        *arguments(9, 16, 16_500), plain=as_torch(plain), linear_bias=leaf(16_500),
        label_smoothing=0.1,
    )  # fmt: skip


@pytest.mark.parametrize("classes", [37, 48, 131])
def test_rows_that_lie_apart(classes):
    """Padded rows, as on a GPU, give what others give, whatever the padding holds."""
    pytest.importorskip("triton")
    chunk = torch.ops.bigfast.linear_cross_entropy_chunk_
    padded = torch.full((5, 192), torch.nan)
    bias, target = torch.full((192,), torch.nan), labels(5, classes=classes, ignored=0)
    logits, padded_bias = padded[:, :classes].normal_(), bias[:classes].normal_()
    got = []
    for z, b in ((logits.clone(), padded_bias.clone()), (logits, padded_bias)):
        losses, dbias = torch.zeros(5), torch.zeros(classes)
        total = torch.zeros((), dtype=torch.float64)
        with registry.backend("triton"):
            chunk(z, b, target, torch.ones(1), losses, total, dbias, True, 0.1, 1e-3)
        got.append((z, losses, total, dbias))
    assert all(torch.equal(a, b) for a, b in zip(*got))
    assert got[0][0].isfinite().all() and padded[:, -16:].isnan().all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_float16(implementation, small_chunks, reduction):
    if implementation.startswith("cpp"):
        return  # has no fp16
    check_op(
        as_torch(linear_cross_entropy), as_torch(linear_cross_entropy_ref),
        *arguments(61, 24, 300, dtype=torch.float16), plain=as_torch(plain),
        linear_bias=leaf(300, dtype=torch.float16), reduction=reduction, z_loss=1e-3,
    )  # fmt: skip


def test_float16_gradients_of_many_rows_do_not_vanish(implementation):
    """1 / num_items is below what fp16 has; torch.amp.GradScaler's loss scale brings it back."""
    if implementation.startswith("cpp"):
        return  # has no fp16
    args = arguments(20, 8, 40, dtype=torch.float16)
    scaled = lambda f: lambda *a: f(*a, num_items=10**8) * 2.0**24
    check_op(scaled(linear_cross_entropy), scaled(linear_cross_entropy_ref), *args)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reductions_agree(implementation, small_chunks, dtype):
    """The sums of fp32 losses: what the rounding of logits leaves alone."""
    arguments_ = arguments(61, 24, 300, dtype=dtype)
    losses = linear_cross_entropy(*arguments_, reduction="none").double()
    total = linear_cross_entropy(*arguments_, reduction="sum")
    mean = linear_cross_entropy(*arguments_)
    assert total.dtype == mean.dtype == torch.float32
    torch.testing.assert_close(total.double(), losses.sum(), rtol=2e-7, atol=0)
    want = losses.sum() / (arguments_[2] != -100).sum()
    torch.testing.assert_close(mean.double(), want, rtol=2e-7, atol=0)


def test_batch_dims(implementation):
    input, weight, target = leaf(3, 5, 8), leaf(11, 8), labels(3, 5, classes=11)
    for reduction in ("mean", "none"):
        check_op(
            linear_cross_entropy, linear_cross_entropy_ref, input, weight, target, plain=plain,
            reduction=reduction,
        )  # fmt: skip


def test_strides(implementation):
    target = labels(12, classes=20)
    weight = leaf(8, 20)
    op = lambda f: lambda x, w: f(x[:, 1::2], w.T, target)
    check_op(op(linear_cross_entropy), op(linear_cross_entropy_ref), leaf(12, 16), weight)


@pytest.mark.parametrize("count", [5, torch.tensor(5), torch.tensor([5.0])])
def test_num_items(implementation, count):
    """Parts of a batch, each over the items of the whole, add up to the whole."""
    input, weight, target = arguments(16, 8, 11)
    kwargs = {"num_items": count}
    check_op(linear_cross_entropy, linear_cross_entropy_ref, input, weight, target, **kwargs)
    labelled = (target != -100).sum()
    whole = linear_cross_entropy(input, weight, target)
    parts = sum(
        linear_cross_entropy(input[i::2], weight, target[i::2], num_items=labelled)
        for i in range(2)
    )
    torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("rows", [0, 4])
def test_no_labels(implementation, rows):
    input, weight, target = leaf(rows, 6), leaf(5, 6), torch.full((rows,), -100)
    bias = leaf(5)
    for reduction, want in (("mean", float("nan")), ("sum", 0.0)):
        loss = linear_cross_entropy(input, weight, target, linear_bias=bias, reduction=reduction)
        torch.testing.assert_close(loss, torch.tensor(want), equal_nan=True)
        for grad in torch.autograd.grad(loss, (input, weight, bias)):
            assert not grad.any()
    losses = linear_cross_entropy(input, weight, target, reduction="none")
    assert torch.equal(losses, torch.zeros(rows))


def test_ignored_rows_are_not_read(implementation):
    input, weight = torch.randn(4, 6), leaf(9, 6)
    input[1] = float("nan")
    input.requires_grad_()
    linear_cross_entropy(input, weight, torch.tensor([3, -100, 0, 8])).backward()
    assert weight.grad.isfinite().all() and not input.grad[1].any() and input.grad[0].any()


def test_extreme_values(implementation):
    """Logits of 10^4 and ties, a row that is sure."""
    input, weight, target = arguments(9, 8, 40, ignored=0)
    with torch.no_grad():
        input[0] *= 1e4
        input[1] = 0
        input[2] = 100 * weight[target[2]]
    check_op(linear_cross_entropy, linear_cross_entropy_ref, input, weight, target)


def test_part_of_the_gradients(implementation):
    """Only what is asked for; nothing of it without autograd."""
    input, weight, target = arguments(9, 8, 40)
    for wanted in ((True, False), (False, True)):
        args = [t.detach().requires_grad_(w) for t, w in zip((input, weight), wanted)]
        check_op(linear_cross_entropy, linear_cross_entropy_ref, *args, target)
    with torch.no_grad():
        loss = linear_cross_entropy(input, weight, target)
    assert not loss.requires_grad
    assert torch.equal(loss, linear_cross_entropy(input, weight, target))


def test_backward_twice(implementation):
    """A kept graph keeps its gradients, whatever happens to those it gave."""
    input, weight, target = arguments(9, 8, 40)
    loss = linear_cross_entropy(input, weight, target)
    loss.backward(retain_graph=True)
    once = weight.grad.clone()
    weight.grad.mul_(3)
    loss.backward()
    torch.testing.assert_close(weight.grad, 4 * once)


@pytest.mark.parametrize("chunked", [False, True])
def test_autocast(implementation, chunked, request):
    """Products in bf16; the fp32 weight's gradient is fp32 and no worse than stock's."""
    if chunked:
        request.getfixturevalue("small_chunks")
    input, weight, target = arguments(40, 32, 200)
    bias = leaf(200)

    def cast(f):
        def run(*args, **kwargs):
            with torch.autocast(input.device.type, dtype=torch.bfloat16):
                return f(*args, **kwargs)

        return run

    for x in (input, leaf(40, 32, dtype=torch.bfloat16)):
        got = cast(linear_cross_entropy)(x, weight, target, linear_bias=bias)
        assert got.dtype == torch.float32
        ours = torch.autograd.grad(got, (x, weight, bias))
        stock = torch.autograd.grad(
            cast(plain)(x, weight, target, linear_bias=bias), (x, weight, bias)
        )
        wide = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
        truth = linear_cross_entropy_ref(wide[0], wide[1], target, linear_bias=wide[2])
        for name, o, s, t in zip("xwb", ours, stock, torch.autograd.grad(truth, wide)):
            assert o.dtype == s.dtype
            check(o, s, t, f"gradient of {name}")


@native
def test_composes(small_chunks):
    input, weight, target = arguments(20, 8, 40)
    bias = leaf(40)
    for kwargs in ({}, {"reduction": "none"}, {"linear_bias": bias}):
        check_compiles(linear_cross_entropy, input, weight, target, **kwargs)
    check_checkpoints(linear_cross_entropy, input, weight, target)
    check_double_backward_raises(linear_cross_entropy, input, weight, target)
    check_functorch(linear_cross_entropy, linear_cross_entropy_ref, input, weight, target)


def test_bits_do_not_depend_on_threads(small_chunks):
    """What is ours does not; whole numbers keep torch's products exact, which may."""
    input, weight = torch.randint(-2, 3, (70, 16)).float(), torch.randint(-2, 3, (900, 16)).float()
    check_threads(
        linear_cross_entropy, input, weight, labels(70, classes=900), linear_bias=leaf(900)
    )


@native
def test_compiles_once_for_any_number_of_labels():
    input, weight, _ = arguments(20, 8, 40)
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for ignored in (0.0, 0.5, 0.9):
            target = labels(20, classes=40, ignored=ignored)
            want = linear_cross_entropy(input, weight, target)
            torch.testing.assert_close(compiled(input, weight, target), want)


@native
@pytest.mark.parametrize("wanted", [(True, True, True), (False, False, False)])
def test_opcheck(wanted):
    input, weight, target = (t.detach() for t in arguments(5, 8, 24))
    args = (input, weight, torch.randn(24), target, torch.ones(5), -100, 0.1, 1e-3)
    args = (*args, torch.bfloat16, *wanted)
    torch.library.opcheck(torch.ops.bigfast.linear_cross_entropy.default, args)
    logits, total = torch.randn(5, 24), torch.zeros((), dtype=torch.float64)
    dbias = torch.zeros(24) if wanted[0] else None
    args = (logits, None, target.clamp(min=0), torch.ones(1), torch.zeros(5), total, dbias)
    torch.library.opcheck(
        torch.ops.bigfast.linear_cross_entropy_chunk_.default, (*args, wanted[0], 0.1, 1e-3)
    )
    args = (torch.zeros(9), torch.randn(9), torch.randn(9).bfloat16())
    torch.library.opcheck(torch.ops.bigfast.add_into_.default, args)


def test_gradcheck_of_the_reference():
    input, weight, target = arguments(4, 3, 5)
    wide = [t.detach().double().requires_grad_() for t in (input, weight, leaf(5))]
    ref = lambda x, w, b: linear_cross_entropy_ref(x, w, target, linear_bias=b)
    torch.autograd.gradcheck(ref, wide)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"input": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "input must be floating"),
        ({"linear_weight": torch.zeros(4, 2)}, ValueError, "linear_weight must have shape"),
        ({"linear_weight": torch.zeros(0, 3)}, ValueError, "linear_weight must not be empty"),
        ({"linear_weight": torch.zeros(4, 3).bfloat16()}, ValueError, "linear_weight must have in"),
        ({"linear_bias": torch.zeros(3)}, ValueError, "linear_bias must have shape"),
        ({"linear_bias": torch.zeros(4).double()}, ValueError, "linear_bias must have input's"),
        ({"target": torch.zeros(3, dtype=torch.int64)}, ValueError, "target must have one label"),
        ({"target": torch.zeros(2)}, TypeError, "target must be int64"),
        ({"target": torch.tensor([0, 4])}, ValueError, r"target .* got 4 in row 1"),
        ({"reduction": "max"}, ValueError, "reduction must be one of"),
        ({"reduction": "sum", "num_items": 3}, ValueError, "num_items needs reduction"),
        ({"num_items": torch.ones(2)}, ValueError, "num_items must be one number"),
    ],
)
def test_bad_input(implementation, change, error, words):
    good = {
        "input": torch.zeros(2, 3),
        "linear_weight": torch.zeros(4, 3),
        "target": torch.tensor([0, 1]),
    }
    with pytest.raises(error, match=words):
        linear_cross_entropy(**(good | change))
