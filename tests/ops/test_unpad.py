import pytest
import torch

from bigfast.ops import pack

MASKS = {
    "right": [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]],
    "left": [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1]],
    "middle": [[1, 0, 1, 0, 1], [0, 1, 1, 0, 0]],
    "full": [[1, 1], [1, 1]],
    "empty sequence": [[0, 0, 0], [1, 1, 0]],
    "empty": [[0, 0], [0, 0]],
}


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.int32, torch.float32])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_pack(mask, dtype):
    packing = pack(torch.tensor(mask).to(dtype))
    batch, seqlen = len(mask), len(mask[0])
    tokens = [(b, s) for b in range(batch) for s in range(seqlen) if mask[b][s]]
    assert packing.rows.tolist() == [b * seqlen + s for b, s in tokens]
    assert packing.positions.tolist() == [sum(mask[b][:s]) for b, s in tokens]
    assert packing.cu_seqlens.tolist() == [sum(map(sum, mask[:b])) for b in range(batch + 1)]
    assert (packing.batch, packing.seqlen) == (batch, seqlen)
    assert all(t.dtype == torch.int32 for t in packing[:3])
