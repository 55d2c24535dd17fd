"""torch.compile(fullgraph=True) of layers, and of whole models where nothing is packed."""

import pytest
import torch
from pairs import BERT, GPT2
from suite import native
from torch import Tensor

from bigfast.models import BertConfig, BertForMaskedLM, GPTConfig, GPTForCausalLM
from bigfast.models.bert import BertLayer
from bigfast.models.gpt import GPTBlock
from bigfast.nn import Layout, Rotary

MODERN = {"norm": "rms_norm", "position": "rotary", "mlp": "swiglu", "n_kv_head": 2}
NOISY = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
PACKED = Layout.of(torch.zeros(17), None, torch.tensor([0, 5, 12, 17], dtype=torch.int32))


def gpt_config(**changes) -> GPTConfig:
    sizes = {key: value for key, value in GPT2.items() if not key.endswith("token_id")}
    return GPTConfig(**(sizes | changes))


def outcome(fn, module, *args) -> list[Tensor]:
    """Outputs and gradients after a fixed seed."""
    torch.manual_seed(11)
    module.zero_grad()
    outputs = fn(*args)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    leaves = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
    leaves += list(module.parameters())
    return [*outputs, *torch.autograd.grad(sum(o.square().sum() for o in outputs), leaves)]


def assert_compiles(module, *args) -> None:
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for got, want in zip(outcome(compiled, module, *args), outcome(module, module, *args)):
        assert torch.equal(got, want)


@native
def test_bert_layer():
    x = torch.randn(17, 48, requires_grad=True)
    assert_compiles(BertLayer(BertConfig(**(BERT | NOISY))), x, PACKED)


@native
@pytest.mark.parametrize("changes", [{}, MODERN])
def test_gpt_block(changes):
    config = gpt_config(**changes, resid_pdrop=0.1, attn_pdrop=0.1)
    rotary = Rotary(12, 64) if changes else None
    x, residual = (torch.randn(17, 48, requires_grad=True) for _ in range(2))
    assert_compiles(GPTBlock(config, 1, rotary), x, residual, PACKED)


@native
@pytest.mark.parametrize(
    "model", [BertForMaskedLM(BertConfig(**BERT)), GPTForCausalLM(gpt_config(**MODERN))]
)
def test_whole_model_without_padding(model):
    ids = torch.randint(0, 131, (3, 10))
    compiled = torch.compile(model.eval(), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(ids).logits, model(ids).logits)
