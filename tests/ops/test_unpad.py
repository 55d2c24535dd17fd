import pytest
import torch
from check import check_op
from suite import check_checkpoints, check_compiles, check_functorch, check_threads, leaf, native
from torch._subclasses.fake_tensor import FakeTensorMode

from bigfast.ops import pack, pad, pad_ref, unpad, unpad_ref

MASKS = {
    "right": [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]],
    "left": [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1]],
    "middle": [[1, 0, 1, 0, 1], [0, 1, 1, 0, 0]],
    "full": [[1, 1], [1, 1]],
    "one": [[0, 1, 0]],
    "empty sequence": [[0, 0, 0], [1, 1, 0]],
    "empty": [[0, 0], [0, 0]],
    "no sequence": torch.zeros(0, 4),
}
masks = pytest.mark.parametrize("mask", [torch.as_tensor(m) for m in MASKS.values()], ids=MASKS)


def check_rows(packing, x=None, tokens=None):
    """unpad of x and pad of tokens, against their references."""
    if x is not None:
        check_op(lambda x: unpad(x, packing), lambda x: unpad_ref(x, packing), x)
    if tokens is not None:
        check_op(lambda x: pad(x, packing), lambda x: pad_ref(x, packing), tokens)


@masks
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_pack(mask, dtype):
    packing = pack(mask.to(dtype))
    batch, seqlen = mask.shape
    tokens = [(b, s) for b in range(batch) for s in range(seqlen) if mask[b, s]]
    assert packing.rows.tolist() == [b * seqlen + s for b, s in tokens]
    assert packing.positions.tolist() == [int(mask[b, :s].sum()) for b, s in tokens]
    assert packing.cu_seqlens.tolist() == [int(mask[:b].sum()) for b in range(batch + 1)]
    assert (packing.batch, packing.seqlen) == (batch, seqlen)
    assert all(t.dtype == torch.int32 for t in packing[:3])


@masks
@pytest.mark.parametrize("rest", [(), (3, 7), (768,)])
def test_equals_truth(implementation, mask, rest):
    packing = pack(mask)
    x, tokens = (leaf(*n, *rest) for n in (mask.shape, packing.rows.shape))
    check_rows(packing, x, tokens)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int16, torch.int64, torch.bfloat16, torch.complex64]
)
def test_every_dtype(implementation, dtype):
    """The result of pad is zero but where tokens are, whatever was in its memory before."""
    mask = torch.tensor(MASKS["middle"])
    packing = pack(mask)
    x = torch.ones(2, 5, 3).to(dtype)
    tokens = unpad(x, packing)
    assert tokens.dtype == dtype and torch.equal(tokens, torch.ones(5, 3).to(dtype))
    assert torch.equal(pad(tokens, packing), mask[..., None].expand(2, 5, 3).to(dtype))


def test_many_rows(implementation):
    """More than one task; rows in any order."""
    packing = pack(torch.rand(40, 50) < 0.6)
    packing = packing._replace(rows=packing.rows[torch.randperm(len(packing.rows))])
    x = torch.randn(40, 50, 100)
    tokens = unpad(x, packing)
    assert torch.equal(tokens, unpad_ref(x, packing))
    assert torch.equal(pad(tokens, packing), pad_ref(tokens, packing))


def test_strides(implementation):
    packing = pack(torch.tensor(MASKS["right"]))
    check_rows(packing, torch.randn(3, 5, 2, 9)[:, :, 1].requires_grad_())
    check_rows(packing, torch.randn(5, 3, 8).transpose(0, 1)[..., ::2].requires_grad_())
    check_rows(packing, tokens=torch.randn(4, 9).T.requires_grad_())
    check_rows(packing, tokens=torch.randn(9, 8)[:, 2:7].requires_grad_())


@native
def test_composes():
    packing = pack(torch.rand(6, 9) < 0.5)
    x, tokens = leaf(6, 9, 8), leaf(len(packing.rows), 8)
    for op, ref, arg in ((unpad, unpad_ref, x), (pad, pad_ref, tokens)):
        check_compiles(op, arg, packing)
        check_checkpoints(op, arg, packing)
        check_functorch(op, ref, arg, packing)
        check_threads(op, arg, packing)
        wide = arg.detach().double().requires_grad_()
        torch.autograd.gradcheck(lambda a: op(a, packing), wide)  # noqa: B023
        torch.autograd.gradgradcheck(lambda a: op(a, packing), wide)  # noqa: B023
        torch.autograd.gradcheck(lambda a: ref(a, packing), wide)  # noqa: B023


@native
def test_autocast_casts_nothing():
    packing = pack(torch.ones(2, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pad(unpad(torch.randn(2, 3, 4), packing), packing).dtype == torch.float32


@native
def test_opcheck():
    rows = torch.tensor([1, 4], dtype=torch.int32)
    torch.library.opcheck(torch.ops.bigfast.unpad.default, (torch.randn(6, 3), rows))
    torch.library.opcheck(torch.ops.bigfast.pad.default, (torch.randn(2, 3), rows, 6))


def test_rows_out_of_range(implementation):
    packing = pack(torch.ones(2, 3))
    for bad in (6, -1):
        packing.rows[4] = bad
        with pytest.raises(ValueError, match=rf"packing.rows\[4\] is {bad}, .* in 0..5"):
            unpad(torch.zeros(2, 3), packing)
        with pytest.raises(ValueError, match=rf"packing.rows\[4\] is {bad}, .* in 0..5"):
            pad(torch.zeros(6, 4), packing)


def test_a_captured_graph_reads_nothing_on_the_host(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    pack(torch.ones(2, 3))
    with FakeTensorMode(), pytest.raises(RuntimeError, match="and pass cu_seq_lens_q and"):
        pack(torch.ones(2, 3, device="cuda"))


def test_bad_input(implementation):
    packing = pack(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"x must be \(B, S, ...\) = \(2, 3\) .* got \(3, 2\)"):
        unpad(torch.zeros(3, 2), packing)
    with pytest.raises(ValueError, match=r"x must be \(T, ...\), T = 6 .* got \(2, 3\)"):
        pad(torch.zeros(2, 3), packing)
    with pytest.raises(ValueError, match=r"attention_mask must be \(B, S\), got \(3,\)"):
        pack(torch.ones(3))
    with pytest.raises(ValueError, match=r"attention_mask must be 0 or 1, but \[1, 0\] is 2"):
        pack(torch.tensor([[1, 0], [2, 1]]))
    with pytest.raises(ValueError, match=r"\[0, 0\] is nan"):
        pack(torch.tensor([[float("nan")]]))
    with pytest.raises(TypeError, match="attention_mask must be bool, int or float"):
        pack(torch.ones(1, 1, dtype=torch.complex64))
