import torch
import torch.nn.functional as F

from bigfast.ops import attention, attention_ref


def test_reference_is_torchs():
    q, k, v = (torch.randn(2, 9, 4, 16, dtype=torch.float64) for _ in range(3))
    for causal in (False, True):
        want = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=causal
        )
        torch.testing.assert_close(attention_ref(q, k, v, causal=causal), want.transpose(1, 2))
        torch.testing.assert_close(attention(q, k, v, causal=causal), want.transpose(1, 2))
