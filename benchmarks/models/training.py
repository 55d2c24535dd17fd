"""Training steps: forward, backward, clipping to norm 1 and AdamW, as stock users write them and
as our trainer does."""

import json
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from bigfast.models.config import ModelConfig
from bigfast.models.pretrained import PretrainedModel
from bigfast.ops import grad_norm
from bigfast.optim import AdamW

from ..timing import Call
from .workload import Entry

Batch = dict[str, Tensor]
Loss = Callable[[nn.Module, Batch], Tensor]
LEARNING_RATE = 1e-5


def full_loss(model: nn.Module, batch: Batch) -> Tensor:
    return model(**batch).loss


def stock_adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)


def stock_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    loss_of: Loss,
    autocast: bool,
) -> Call:
    parameters = list(model.parameters())
    device = parameters[0].device.type

    def steps() -> None:
        for batch in batches:
            with torch.autocast(device, torch.bfloat16, enabled=autocast):
                loss = loss_of(model, batch)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return steps


def our_steps(model: nn.Module, optimizer: AdamW, batches: Sequence[Batch], autocast: bool) -> Call:
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device.type

    def steps() -> None:
        for batch in batches:
            with torch.autocast(device, torch.bfloat16, enabled=autocast):
                loss = full_loss(model, batch)
            loss.backward()
            norm = grad_norm([p.grad for p in parameters if p.grad is not None])
            optimizer.step(grad_scale=(1.0 / norm).clamp(max=1.0))
            optimizer.zero_grad()

    return steps


def entry(
    call: Call,
    model: nn.Module,
    batches: Sequence[Batch],
    loss_of: Loss,
    autocast: bool,
    shared: Batch,
    compiled: bool = False,
) -> Entry:
    """Its result is the loss of the batch `shared`, with dropout off."""

    def result() -> Tensor:
        device = next(model.parameters()).device.type
        model.eval()
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=autocast):
            loss = loss_of(model, shared)
        model.train()
        return loss

    return Entry(call, result, real_tokens(batches), compiled)


def real_tokens(batches: Sequence[Batch]) -> int:
    return sum(int(batch["attention_mask"].sum()) for batch in batches)


def our_config(cls: type[ModelConfig], config: PreTrainedConfig) -> ModelConfig:
    """BigFast's configuration from transformers', by what it would write to config.json."""
    return cls.from_dict(json.loads(config.to_json_string()))


def ours_like(cls: type[PretrainedModel], config: ModelConfig, stock: nn.Module) -> PretrainedModel:
    """Our model with the weights of `stock`: its very Parameters, where the layout is the same."""
    device = next(stock.parameters()).device
    with torch.device("meta"):
        model = cls(config)
    state = {}
    for name, parameter in stock.named_parameters(remove_duplicate=False):
        converted = cls.convert(name, parameter)
        own = converted is not parameter
        state[name] = converted.detach().clone().contiguous() if own else parameter
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    left = [name for name, p in model.named_parameters() if p.is_meta]
    assert not left, f"stock has no {left}"
    return model.to(device).train()
