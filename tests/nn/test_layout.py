import pytest
import torch

from bigfast.nn import Layout

MASK = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0]])
IDS = torch.arange(16).view(4, 4)
REAL = [0, 1, 5, 6, 7, 12, 14]
OFFSETS = torch.tensor([0, 2, 5, 5, 7], dtype=torch.int32)


def test_padded():
    layout = Layout.of(IDS, MASK, None)
    assert layout.cu_seqlens.tolist() == OFFSETS.tolist()
    assert layout.rows.tolist() == layout.pack(IDS).tolist() == REAL
    assert layout.positions.tolist() == [0, 1, 1, 2, 3, 0, 2]
    assert torch.equal(layout.unpack(layout.pack(IDS)), IDS * MASK)
    assert layout.first().tolist() == [0, 2, 5, 5]


def test_without_padding():
    for mask in (None, torch.ones(4, 4)):
        layout = Layout.of(IDS, mask, None)
        assert layout.rows is None and layout.cu_seqlens.tolist() == [0, 4, 8, 12, 16]
        assert layout.positions.tolist() == [0, 1, 2, 3] * 4
        assert torch.equal(layout.pack(IDS), torch.arange(16))
        assert torch.equal(layout.unpack(torch.arange(16)), IDS)


def test_packed_by_the_caller():
    layout = Layout.of(torch.arange(7), None, OFFSETS)
    assert layout.positions.tolist() == [0, 1, 0, 1, 2, 0, 1]
    assert layout.rows is None and layout.first().tolist() == [0, 2, 5, 5]
    x = torch.randn(7, 3)
    assert layout.pack(x) is layout.unpack(x) is x


def test_next_labels():
    """Each token's label is its right neighbour's; ends and tokens before padding have none."""
    none = -100
    padded = Layout.of(IDS, MASK, None).next_labels(IDS)
    assert padded.tolist() == [1, none, 6, 7, none, none, none]
    packed = Layout.of(torch.arange(7), None, OFFSETS).next_labels(torch.arange(7))
    assert packed.tolist() == [1, none, 3, 4, none, 6, none]
    dense = Layout.of(IDS, None, None).next_labels(IDS)
    assert dense.view(4, 4)[:, :3].equal(IDS[:, 1:]) and (dense.view(4, 4)[:, 3] == none).all()
    first_empty = Layout.of(IDS[:2], torch.tensor([[0, 0, 0, 0], [1, 1, 0, 0]]), None)
    assert first_empty.next_labels(IDS[:2]).tolist() == [5, none]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((torch.arange(7), None, None), r"input_ids must be \(B, S\), or \(T\) with cu_seqlens"),
        ((IDS, None, OFFSETS), "cu_seqlens goes with input_ids"),
        ((torch.arange(7), torch.ones(7), OFFSETS), "no attention_mask"),
        ((IDS, MASK[:2], None), r"attention_mask must have input_ids' shape \(4, 4\), got"),
        ((IDS, 2 * MASK, None), "attention_mask must be 0 or 1"),
    ],
)
def test_bad_input(args, words):
    with pytest.raises(ValueError, match=words):
        Layout.of(*args)
