"""A step of BERT under fp16 autocast with torch.amp.GradScaler."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import torch
from check import check
from torch import Tensor, nn

from bigfast.models.bert import BertConfig, BertForMaskedLM
from bigfast.ops import backend
from bigfast.optim import AdamW

OPS = ["attention", "layer_norm", "bias_gelu", "embedding", "linear_cross_entropy", "adamw"]
ONLY = "triton"
SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SCALE = 2.0**14


@pytest.fixture
def batch() -> dict[str, Tensor]:
    ids = torch.randint(1, 60, (3, 9))
    mask = (torch.arange(9) < torch.tensor([[9], [5], [7]])).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.where(mask > 0, -100)}


@contextmanager
def reference() -> Iterator[None]:
    """Whatever is forced for the test, or for its ops."""
    with ExitStack() as stack:
        for op in (None, *OPS):
            stack.enter_context(backend("reference", op))
        yield


def model() -> BertForMaskedLM:
    config = BertConfig(**SIZES, intermediate_size=64, initializer_range=0.2)
    return BertForMaskedLM(config).to(torch.get_default_device()).train()


def loss_of(model: nn.Module, batch: dict[str, Tensor], half: bool) -> Tensor:
    """With the same dropout at every call."""
    torch.manual_seed(3)
    with torch.autocast(batch["input_ids"].device.type, torch.float16, enabled=half):
        return model(**batch).loss


def gradients(model: nn.Module, batch: dict[str, Tensor], half: bool) -> dict[str, Tensor]:
    """As the optimizer sees them: scaled while they are fp16, then unscaled."""
    device = batch["input_ids"].device.type
    scaler = torch.amp.GradScaler(device, init_scale=SCALE, enabled=half)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    scaler.scale(loss_of(model, batch, half)).backward()
    scaler.unscale_(optimizer)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_unscaled_gradients(implementation, batch):
    ours = model()
    plain, wide = copy.deepcopy(ours), copy.deepcopy(ours).double()
    got = gradients(ours, batch, half=True)
    with reference():
        base, truth = gradients(plain, batch, half=True), gradients(wide, batch, half=False)
    assert got.keys() == truth.keys()
    for name, grad in got.items():
        check(grad, base[name], truth[name], name)


@pytest.mark.filterwarnings("ignore::RuntimeWarning:numpy")  # of infinities, in the interpreter
def test_scaler_steps_or_skips(implementation, batch):
    """Gradients that overflow change nothing but the scale."""
    ours = model()
    optimizer = AdamW(ours.parameters(), lr=0.01)
    device = batch["input_ids"].device.type
    for scale, steps in ((2.0**60, False), (SCALE, True)):
        scaler = torch.amp.GradScaler(device, init_scale=scale)
        before = [p.detach().clone() for p in ours.parameters()]
        scaler.scale(loss_of(ours, batch, half=True)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        changed = [not torch.equal(p, q) for p, q in zip(ours.parameters(), before)]
        assert any(changed) == steps and all(p.isfinite().all() for p in ours.parameters())
        assert scaler.get_scale() == (scale if steps else scale / 2)
