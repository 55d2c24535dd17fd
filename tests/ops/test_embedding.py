import pytest
import torch
import torch.nn.functional as F
from check import check_op, run
from suite import (
    check_checkpoints,
    check_compiles,
    check_double_backward_raises,
    check_functorch,
    check_same,
    check_threads,
    edge_p,
    interpreted,
    leaf,
    native,
)

from bigfast.ops import dropout_seed, embedding, embedding_ref

# Tokens, rows of the word table, features: one token; below and above vector widths and the widths
# that small tables are split by; many tokens of few words; few of many; bert-base's features.
SIZES = [((1,), 3, 5), ((2, 7), 11, 16), ((5, 13), 150, 131), ((40,), 4, 70), ((2, 9), 999, 768)]
DTYPES = [torch.float32, torch.bfloat16]


def plain(
    input_ids, word, *, position, position_ids, token_type, token_type_ids, norm_weight, norm_bias
):
    """What a torch user writes."""
    y = F.embedding(input_ids, word) + F.embedding(token_type_ids, token_type)
    y = y + F.embedding(position_ids, position)
    return F.layer_norm(y, norm_weight.shape, norm_weight, norm_bias, 1e-12)


def inputs(shape, words, features, dtype=torch.float32, index=torch.int64):
    ids = torch.randint(words, shape, dtype=index)
    tables = {
        "position": leaf(shape[-1] + 3, features, dtype=dtype),
        "position_ids": torch.randint(shape[-1] + 3, shape, dtype=index),
        "token_type": leaf(2, features, dtype=dtype),
        "token_type_ids": torch.randint(2, shape, dtype=index),
    }
    norm = {"norm_weight": leaf(features, dtype=dtype), "norm_bias": leaf(features, dtype=dtype)}
    return ids, leaf(words, features, dtype=dtype), tables, norm


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_equals_truth(implementation, size, dtype):
    ids, word, tables, norm = inputs(*size, dtype)
    check_op(embedding, embedding_ref, ids, word, plain=plain, **tables, **norm)


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_norm(implementation, dtype):
    ids, word, tables, _ = inputs((4, 9), 23, 40, dtype, torch.int32)
    check_op(embedding, embedding_ref, ids, word)
    check_op(embedding, embedding_ref, ids, word, **tables)
    check_op(embedding, embedding_ref, ids, word, dropout_p=0.4, seed=dropout_seed())


@pytest.mark.parametrize("dropout_p", [0.1, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout(implementation, dtype, dropout_p):
    """More rows than one task has."""
    ids, word, tables, norm = inputs((3, 11), 23, 300, dtype)
    check_op(
        embedding, embedding_ref, ids, word, **tables, **norm, dropout_p=dropout_p,
        seed=dropout_seed(), rows=torch.randperm(33, dtype=torch.int32),
    )  # fmt: skip


def test_mask_is_the_references_bit_for_bit(implementation):
    ids, word = torch.zeros(40, dtype=torch.int64), torch.ones(1, 300)
    rows, seed = torch.randperm(40, dtype=torch.int32), dropout_seed()
    for choice, p in ((None, 0.25), (rows, 0.25), (None, edge_p(seed))):
        kwargs = {"dropout_p": p, "seed": seed, "rows": choice}
        assert torch.equal(embedding(ids, word, **kwargs), embedding_ref(ids, word, **kwargs))


def test_default_and_broadcast_indices(implementation):
    """Positions count along the last dim, types are 0; a row of positions serves all sequences."""
    ids, word, tables, norm = inputs((3, 7), 11, 24)
    tables.pop("position_ids"), tables.pop("token_type_ids")
    check_op(embedding, embedding_ref, ids, word, **tables, **norm)
    want = run(embedding, (ids, word), tables)
    counted = {"position_ids": torch.arange(7)[None], "token_type_ids": torch.tensor([[0]])}
    check_same(run(embedding, (ids, word), tables | counted), want)


@pytest.mark.parametrize("padding_idx", [0, 4, -1])
def test_padding_idx_has_no_gradient(implementation, padding_idx):
    ids, word, tables, norm = inputs((6, 8), 5, 24)
    check_op(embedding, embedding_ref, ids, word, **tables, **norm, padding_idx=padding_idx)
    embedding(ids, word, padding_idx=padding_idx).sum().backward()
    assert not word.grad[padding_idx].any()


def test_a_word_of_many_tokens(implementation):
    """More of them than are summed in one place, or in one step."""
    ids = torch.tensor([1] * 590 + [0, 3, 3, 4])[torch.randperm(594)].int()
    check_op(embedding, embedding_ref, ids, leaf(6, 3))


def test_a_nan_stays_in_its_row(implementation):
    word, dy = leaf(5, 3), torch.randn(60, 3)
    ids = torch.randint(5, (60,))
    dy[7, 1] = float("nan")
    embedding(ids, word).backward(dy)
    assert word.grad.isnan().nonzero().tolist() == [[ids[7], 1]]


def test_frozen_tables(implementation):
    """A table that needs no gradient gets none; the others' are the same."""
    ids, word, tables, norm = inputs((2, 9), 11, 24)
    want = dict(run(embedding, (ids, word), tables | norm)[1])
    for names in (["1"], ["position", "norm_weight"], ["token_type"], ["norm_bias"]):
        args = {k: v.detach() if k in names else v for k, v in (tables | norm).items()}
        got = run(embedding, (ids, word.detach() if "1" in names else word), args)[1]
        assert {k for k, _ in got} == set(want) - set(names)
        assert all(torch.equal(v, want[k]) for k, v in got)


def test_mixed_dtypes(implementation):
    """fp32 tables and norm, bf16 out (autocast); bf16 tables and fp32 norm."""
    ids, word, tables, norm = inputs((4, 9), 23, 40)
    check_op(embedding, embedding_ref, ids, word, **tables, **norm, out_dtype=torch.bfloat16)
    _, word, tables, _ = inputs((4, 9), 23, 40, torch.bfloat16)
    check_op(embedding, embedding_ref, ids, word, **tables, **norm)


def test_float16(implementation):
    if implementation.startswith("cpp"):
        return  # has no fp16
    ids, word, tables, norm = inputs((3, 7), 11, 130, torch.float16)
    check_op(
        embedding, embedding_ref, ids, word, **tables, **norm, dropout_p=0.1, seed=dropout_seed(),
        padding_idx=3,
    )  # fmt: skip


def test_zero_tokens(implementation):
    _, word, tables, norm = inputs((2, 9), 23, 40)
    tables["position_ids"] = tables["token_type_ids"] = None
    for shape in ((0,), (0, 9), (2, 0)):
        ids = torch.empty(shape, dtype=torch.int64)
        y = embedding(ids, word, **tables, **norm, dropout_p=0.1)
        y.sum().backward()
        assert y.shape == (*shape, 40)
        assert not word.grad.any() and not norm["norm_weight"].grad.any()


def test_strides(implementation):
    ids = torch.randint(6, (10, 8)).T[::2]
    word, bias = torch.randn(24, 6).T.requires_grad_(), torch.randn(48)[::2].requires_grad_()
    check_op(embedding, embedding_ref, ids, word, norm_weight=leaf(24), norm_bias=bias)


def test_extreme_values(implementation):
    """A large common offset, tiny rows: nothing cancels, nothing overflows."""
    word = torch.randn(3, 257)
    word[0] += 1e4
    word[1] *= 1e-15
    check_op(embedding, embedding_ref, torch.arange(3), word, norm_weight=torch.ones(257))
    word[2, 5] = float("nan")
    assert embedding(torch.tensor([2]), word, norm_weight=torch.ones(257)).isnan().all()


@native
def test_composes():
    ids, word, tables, norm = inputs((3, 7), 11, 24)
    every = tables | norm
    by_table = lambda word, ids, **k: embedding(ids, word, **k)
    ref = lambda word, ids, **k: embedding_ref(ids, word, **k)
    check_compiles(embedding, ids, word, **every, dropout_p=0.2, seed=dropout_seed())
    check_compiles(embedding, ids, word, padding_idx=2)
    check_checkpoints(embedding, ids, word, **every, dropout_p=0.2)
    check_double_backward_raises(by_table, word, ids, **every)
    detached = {k: v.detach() for k, v in every.items()}
    check_functorch(by_table, ref, word, ids, **detached)
    ids, word, tables, norm = inputs((9, 37), 300, 96)
    check_threads(embedding, ids, word, **tables, **norm, dropout_p=0.2, seed=dropout_seed())


@native
def test_autocast():
    """The result has autocast's dtype; what is asked for goes before."""
    ids, word, tables, norm = inputs((3, 7), 11, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = embedding(ids, word, **tables, **norm)
        assert embedding(ids, word, out_dtype=torch.float32).dtype == torch.float32
    want = embedding(ids, word, **tables, **norm, out_dtype=torch.bfloat16)
    assert got.dtype == torch.bfloat16 and torch.equal(got, want)
    got.sum().backward()
    assert word.grad.dtype == torch.float32


@native
def test_opcheck():
    ids, word, tables, norm = inputs((14,), 11, 24)
    seed = dropout_seed()
    every = [t.detach() for t in (ids, word, *tables.values(), *norm.values())]
    forward, backward = torch.ops.bigfast.embedding_fwd, torch.ops.bigfast.embedding_bwd
    args = (*every, None, seed, 6554, 1e-12, 14, torch.bfloat16)
    torch.library.opcheck(forward.default, args)
    y, mean, rstd = forward(*args)
    args = (y, *every[:-1], mean, rstd, None, seed, 6554, 14, -1, True, True, False, True)
    torch.library.opcheck(backward.default, args)
    bare = (*every[:2], *[None] * 8, 0, 0.0, 14, torch.float32)
    torch.library.opcheck(forward.default, bare)
    y, mean, rstd = forward(*bare)
    args = (y, *every[:2], *[None] * 5, mean, rstd, None, None, 0, 14, 3, False, True, True, True)
    torch.library.opcheck(backward.default, args)


def test_gradcheck_of_the_reference():
    ids, word, tables, norm = inputs((2, 4), 5, 6)
    wide = lambda d: {k: v.detach().double() if v.is_floating_point() else v for k, v in d.items()}
    tables, norm, seed = wide(tables), wide(norm), dropout_seed()
    names = ["position", "token_type", "norm_weight", "norm_bias"]
    leaves = [(tables | norm)[name].requires_grad_() for name in names]
    ref = lambda word, *leaves: embedding_ref(
        ids, word, **(tables | norm | dict(zip(names, leaves))), dropout_p=0.3, seed=seed
    )
    torch.autograd.gradcheck(ref, (word.detach().double().requires_grad_(), *leaves))


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_ids_out_of_range(implementation, index):
    """The error names the id and its position."""
    ids = torch.tensor([[1, 2, 0], [0, 9, 3]], dtype=index)
    types = torch.tensor([[0, 1, 0], [-1, 0, 1]], dtype=index)
    word, token_type = leaf(9, 8), leaf(2, 8)
    with pytest.raises(ValueError, match=r"input_ids\[1, 1\] is 9, but must lie in 0..8"):
        embedding(ids, word)
    with pytest.raises(ValueError, match=r"token_type_ids\[1, 0\] is -1, but must lie in 0..1"):
        embedding(ids.clamp(max=8), word, token_type=token_type, token_type_ids=types)
    with pytest.raises(ValueError, match=r"position_ids\[0, 1\] is 2, but must lie in 0..1"):
        embedding(types.clamp(min=0), word, position=token_type, position_ids=ids)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"input_ids": torch.zeros(2, 3)}, TypeError, "input_ids must be int32 or int64"),
        ({"input_ids": torch.tensor(1)}, ValueError, "input_ids must have"),
        ({"word": torch.zeros(4)}, ValueError, "word must be"),
        ({"word": torch.zeros(4, 8, dtype=torch.int64)}, TypeError, "word must be floating"),
        ({"position": torch.zeros(9, 7)}, ValueError, r"position must be \(rows, 8\)"),
        ({"position": torch.zeros(2, 8)}, ValueError, "position has 2 rows, but .* 3 tokens"),
        ({"position_ids": torch.zeros(2, 3)}, ValueError, "position_ids needs position"),
        ({"token_type_ids": torch.zeros(2, 3)}, ValueError, "token_type_ids needs token_type"),
        ({"norm_bias": torch.ones(8)}, ValueError, "norm_bias needs norm_weight"),
        ({"norm_weight": torch.ones(7)}, ValueError, r"norm_weight must be \(8,\)"),
        ({"padding_idx": 4}, ValueError, "padding_idx .* got 4"),
        ({"dropout_p": 1.5}, ValueError, r"dropout_p .* got 1.5"),
        ({"rows": torch.zeros(3, dtype=torch.int32)}, ValueError, "rows must be int32"),
        (
            {"position": torch.zeros(4, 8), "position_ids": torch.zeros(2, dtype=torch.int64)},
            ValueError,
            "position_ids must broadcast",
        ),
    ],
)
def test_bad_input(implementation, change, error, words):
    good = {"input_ids": torch.zeros(2, 3, dtype=torch.int64), "word": torch.zeros(4, 8)}
    with pytest.raises(error, match=words):
        embedding(**(good | change))


@pytest.mark.parametrize("bad", [-1, 5])
def test_triton_checks_ids_itself(bad):
    """On a GPU nobody has looked at them before."""
    embedding_fwd = interpreted("embedding").embedding_fwd
    ids, absent = torch.tensor([2, bad]), [None] * 8
    with pytest.raises(RuntimeError, match="ids"):
        embedding_fwd(ids, torch.randn(5, 8), *absent, 0, 1e-5, 2, torch.float32)
