"""The modules are torch.nn's in parameters, and their ops in what they compute."""

import pytest
import torch
import torch.nn.functional as F

from bigfast import nn, ops


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (nn.LayerNorm(6, eps=1e-3), torch.nn.LayerNorm(6, eps=1e-3)),
        (nn.LayerNorm(6, bias=False), torch.nn.LayerNorm(6, bias=False)),
        (nn.RMSNorm(6), torch.nn.RMSNorm(6, eps=1e-6)),
        (nn.LinearGELU(6, 8), torch.nn.Linear(6, 8)),
        (nn.LinearSwiGLU(6, 8), torch.nn.Linear(6, 16)),
    ],
)
def test_parameters_are_torchs(ours, torchs):
    state = torchs.state_dict()
    ours.load_state_dict(state)
    assert isinstance(ours, type(torchs))
    x = torch.randn(3, 6)
    want = torchs(x)
    if isinstance(ours, nn.LinearGELU):
        want = F.gelu(want)
    if isinstance(ours, nn.LinearSwiGLU):
        want = F.silu(want[:, :8]) * want[:, 8:]
    torch.testing.assert_close(ours(x), want)


@pytest.mark.parametrize("norm", [nn.LayerNorm(16), nn.RMSNorm(16)])
def test_norms_take_dropout_and_residual(norm):
    x, residual = torch.randn(5, 16), torch.randn(5, 16)
    rows = torch.tensor([4, 0, 9, 2, 1], dtype=torch.int32)
    torch.manual_seed(3)
    y, r = norm(x, residual, 0.5, rows, return_residual=True)
    torch.manual_seed(3)
    op = ops.layer_norm if isinstance(norm, nn.LayerNorm) else ops.rms_norm
    args = (norm.weight, norm.bias) if isinstance(norm, nn.LayerNorm) else (norm.weight,)
    want = op(
        x, *args, residual=residual, eps=norm.eps, dropout_p=0.5, rows=rows, return_residual=True
    )
    assert torch.equal(y, want[0]) and torch.equal(r, want[1]) and not torch.equal(r, x + residual)
    norm.eval()  # no dropout
    assert torch.equal(norm(x, residual, 0.5, return_residual=True)[1], x + residual)
    norm.train()


@pytest.mark.parametrize(("name", "form"), nn.GELU_FORMS.items())
def test_gelu_forms_are_transformers(name, form):
    from transformers.activations import ACT2FN

    x = torch.linspace(-5, 5, 101)
    torch.testing.assert_close(F.gelu(x, approximate=form), ACT2FN[name](x))


def test_rotary_turns_by_position():
    rotary = nn.Rotary(8, 32, theta=100.0)
    q, k = torch.randn(5, 4, 8), torch.randn(5, 2, 8)
    positions = torch.tensor([3, 0, 31, 7, 7])
    turned_q, turned_k = rotary(q, k, positions)
    assert torch.equal(turned_q[1], q[1])
    angle = positions[:, None] * 100.0 ** (-torch.arange(0, 8, 2) / 8)
    turn = torch.polar(torch.ones_like(angle), angle)[:, None]  # pairs (i, i + D/2) are complex
    for x, turned in ((q, turned_q), (k, turned_k)):
        want = torch.complex(*x.chunk(2, dim=-1)) * turn
        torch.testing.assert_close(turned, torch.cat((want.real, want.imag), dim=-1))
    assert rotary.bfloat16().cos.dtype == torch.float32 and not rotary.state_dict()


def test_bad_settings():
    with pytest.raises(ValueError, match="activation: 'tanh' is not one of gelu, gelu_new"):
        nn.LinearGELU(4, 4, "tanh")
    with pytest.raises(ValueError, match="head_dim must be even to be rotated in pairs, got 5"):
        nn.Rotary(5, 8)
