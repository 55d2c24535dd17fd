import pytest
import torch
import torch.nn.functional as F
from check import check_op
from suite import (
    check_checkpoints,
    check_compiles,
    check_double_backward_raises,
    check_functorch,
    check_threads,
    interpreted,
    leaf,
    native,
)

from bigfast.ops import cross_entropy, cross_entropy_ref

# One class, below, at and above vector widths, more than one block of columns (2048), BERT's words,
# more than Triton holds of a row.
SHAPES = [(1, 1), (3, 7), (2, 16), (67, 131), (5, 2049), (9, 5000), (7, 30522), (3, 20001)]
DTYPES = [torch.float32, torch.bfloat16]


def labels(rows: int, classes: int, ignored: float = 0.4) -> torch.Tensor:
    target = torch.randint(0, classes, (rows,))
    target[torch.rand(rows) < ignored] = -100
    target[-1] = classes - 1  # at least one, and the last class
    return target


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_equals_truth(implementation, shape, dtype, reduction):
    input, target = leaf(*shape, dtype=dtype, scale=3), labels(*shape)
    check_op(cross_entropy, cross_entropy_ref, input, target, reduction=reduction)


TERMS = [{"label_smoothing": 0.1}, {"z_loss": 1e-2}, {"label_smoothing": 0.7, "z_loss": 0.3}]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_label_smoothing_and_z_loss(implementation, dtype, terms, reduction):
    for shape in ((67, 131), (9, 5000), (3, 7)):
        input, target = leaf(*shape, dtype=dtype, scale=3), labels(*shape)
        check_op(cross_entropy, cross_entropy_ref, input, target, reduction=reduction, **terms)


def test_float16(implementation):
    if implementation.startswith("cpp"):
        return  # has no fp16
    input, target = leaf(19, 131, dtype=torch.float16, scale=3), labels(19, 131)
    for terms in ({}, *TERMS):
        check_op(cross_entropy, cross_entropy_ref, input, target, **terms)


def test_equals_torch(implementation):
    input, target = leaf(33, 70), labels(33, 70)
    smooth = {"label_smoothing": 0.2}
    for kwargs in ({}, {"reduction": "sum"}, {"reduction": "none"}, smooth, {"ignore_index": 3}):
        if "ignore_index" in kwargs:
            target = target.clamp(min=0)
        ours = cross_entropy(input, target, **kwargs)
        torch.testing.assert_close(ours, F.cross_entropy(input, target, **kwargs))


def test_loss_of_bf16_is_fp32(implementation):
    input, target = leaf(5, 9, dtype=torch.bfloat16), labels(5, 9)
    assert cross_entropy(input, target).dtype == torch.float32
    assert cross_entropy(input, target, reduction="none").dtype == torch.float32


@pytest.mark.parametrize("rows", [0, 4])
def test_no_labels(implementation, rows):
    input, target = leaf(rows, 6), torch.full((rows,), -100)
    for reduction, want in (("mean", float("nan")), ("sum", 0.0)):
        loss = cross_entropy(input, target, reduction=reduction)
        torch.testing.assert_close(loss, torch.tensor(want), equal_nan=True)
        (grad,) = torch.autograd.grad(loss, input)
        assert torch.equal(grad, torch.zeros(rows, 6))
    assert torch.equal(cross_entropy(input, target, reduction="none"), torch.zeros(rows))


def test_ignored_rows_are_not_read(implementation):
    """They may hold NaN; classes and ignore_index may coincide."""
    input, target = torch.randn(4, 40), torch.tensor([3, 7, 3, 11])
    input[0] = input[2] = float("nan")
    input.requires_grad_()
    loss = cross_entropy(input, target, ignore_index=3)
    loss.backward()
    assert loss.isfinite() and input.grad.isfinite().all()
    assert not input.grad[[0, 2]].any() and input.grad[[1, 3]].any()


def test_strides(implementation):
    target = labels(12, 50)
    columns = lambda f: lambda x: f(x[:, 7:57], target)
    check_op(columns(cross_entropy), columns(cross_entropy_ref), leaf(12, 90))
    rows = lambda f: lambda x: f(x[::2], target)
    check_op(rows(cross_entropy), rows(cross_entropy_ref), leaf(24, 50))
    check_op(cross_entropy, cross_entropy_ref, torch.randn(50, 12).T.requires_grad_(), target)
    check_op(cross_entropy, cross_entropy_ref, leaf(12, 50), target.repeat_interleave(2)[::2])


@native
def test_row_strides_are_not_copied(monkeypatch):
    rows = torch.randn(6, 80)[:, 3:70]
    monkeypatch.setattr(
        torch.Tensor, "contiguous", lambda t: pytest.fail("copied") if t is rows else t
    )
    cross_entropy(rows, labels(6, 67))


def test_extreme_values(implementation):
    """Large common offsets, far outliers, -inf for classes that are ruled out, a sure row."""
    input = torch.randn(8, 4099)
    input[0] += 1e4
    input[1] *= 1e-18
    input[2, 4000] = 1e5
    input[3, :3000] = -torch.inf
    input[4] = 3.0
    input[5, 17] = 60.0
    input[6] = -3e38
    input[7, 4098] = 1e5
    target = torch.tensor([5, 6, 4000, 4098, 0, 17, 1, 4098])
    check_op(cross_entropy, cross_entropy_ref, input.requires_grad_(), target, reduction="none")
    for bad in (torch.nan, torch.inf):
        input = torch.randn(2, 4099)
        input[0, 9] = bad
        losses = cross_entropy(input, target[:2], reduction="none")
        assert losses[0].isnan() and losses[1].isfinite()
    assert cross_entropy(torch.full((1, 40), -torch.inf), target[:1]).isnan()


def test_more_classes_are_ruled_out_than_a_block_has(implementation):
    input = torch.randn(2, 16_400)
    input[:, :16_384] = -torch.inf
    target = torch.tensor([16_384, 16_399])
    check_op(cross_entropy, cross_entropy_ref, input.requires_grad_(), target, reduction="none")


@native
def test_composes():
    input, target = leaf(6, 50), labels(6, 50)
    for reduction in ("mean", "none"):
        check_compiles(cross_entropy, input, target, reduction=reduction)
    check_checkpoints(cross_entropy, input, target)
    check_double_backward_raises(cross_entropy, input, target)
    check_functorch(cross_entropy, cross_entropy_ref, input, target)
    check_threads(cross_entropy, leaf(333, 96), labels(333, 96))


@native
def test_autocast_casts_nothing():
    input, target = leaf(4, 16, dtype=torch.bfloat16), labels(4, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(input, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, cross_entropy(input, target))


@native
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_opcheck(reduction):
    input, target = torch.randn(5, 24), labels(5, 24)
    args = (input, target, -100, reduction, 0.1, 1e-3)
    torch.library.opcheck(torch.ops.bigfast.cross_entropy_fwd.default, args)
    loss, stats, count = torch.ops.bigfast.cross_entropy_fwd(*args)
    args = (torch.ones_like(loss), input, target, stats, count, -100, reduction, 0.1, 1e-3)
    torch.library.opcheck(torch.ops.bigfast.cross_entropy_bwd.default, args)


@native
def test_bad_label_in_a_compiled_function():
    """No ValueError there, but no access out of bounds either."""
    compiled = torch.compile(cross_entropy, fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match="target is 9 in row 1"):
        compiled(torch.randn(2, 5), torch.tensor([1, 9]))


def test_gradcheck_of_the_reference():
    input = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    target = labels(4, 5)
    for terms in ({}, *TERMS):
        torch.autograd.gradcheck(lambda x: cross_entropy_ref(x, target, **terms), input)  # noqa: B023


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"input": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "input must be floating"),
        ({"input": torch.zeros(3)}, ValueError, "input must have shape"),
        ({"input": torch.zeros(2, 0)}, ValueError, "input must have shape"),
        ({"target": torch.zeros(3, dtype=torch.int64)}, ValueError, "target must have one label"),
        ({"target": torch.zeros(2)}, TypeError, "target must be int64"),
        ({"target": torch.tensor([0, 3])}, ValueError, r"target .* got 3 in row 1"),
        ({"target": torch.tensor([-1, 0])}, ValueError, r"target .* got -1 in row 0"),
        ({"reduction": "max"}, ValueError, "reduction must be one of .* got 'max'"),
        ({"label_smoothing": 1.5}, ValueError, r"label_smoothing must lie in \[0, 1\], got 1.5"),
        ({"z_loss": -1.0}, ValueError, "z_loss must not be negative, got -1.0"),
    ],
)
def test_bad_input(implementation, change, error, words):
    good = {"input": torch.zeros(2, 3), "target": torch.tensor([0, 1])}
    with pytest.raises(error, match=words):
        cross_entropy(**(good | change))


@pytest.mark.parametrize("bad", [-1, 5])
def test_triton_checks_targets_itself(bad):
    """On a GPU nobody has looked at them before."""
    cross_entropy_fwd = interpreted("cross_entropy").cross_entropy_fwd
    with pytest.raises(RuntimeError, match="target"):
        cross_entropy_fwd(torch.randn(2, 5), torch.tensor([2, bad]), -100, "mean", 0.0, 0.0)
