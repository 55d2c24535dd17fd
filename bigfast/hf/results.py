"""What `verify` compares: a model's outputs, every parameter's gradient, the losses of some steps.

Dropout is off. Where a model gives no loss, a fixed random projection of its outputs is one.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]
Results = dict[str, dict[str, Tensor]]  # kind -> name -> tensor
KINDS = ("outputs", "gradients", "losses")

_MASKING = ("mask_time_prob", "mask_feature_prob")  # of audio models, in training
_MANY = 4096  # elements: in smaller tensors the error of a single gradient is chance
LARGE = 10_000_000  # parameters: beyond, every tensor has many elements, and every pass takes long
_PIECES = 16
_STEP = 2  # sequences of an optimizer step
_LEARNING_RATE = 1e-4


def results(
    model: nn.Module,
    batch: Batch,
    steps: int,
    kinds: Collection[str] = KINDS,
    tell: Callable[[str], None] = lambda _: None,
) -> Results:
    """Of each kind, name -> tensor; no losses of 0 steps. The model is changed.

    tell: called with what is done next.
    """
    _leave_nothing_to_chance(model)
    found: Results = {}
    if "outputs" in kinds:
        tell("outputs")
        with torch.no_grad():
            outputs = dict(_outputs(model.eval(), batch))
        torch.clear_autocast_cache()  # of weights cast without a gradient
        found["outputs"] = {name: output for name, output in outputs.items() if output.ndim > 0}
    model.train()
    if "gradients" in kinds:
        tell("gradients")
        found["gradients"] = _gradients(model, batch)
    if "losses" in kinds and steps:
        found["losses"] = {"losses": _losses(model, batch, steps, tell)}
    return found


def _leave_nothing_to_chance(model: nn.Module) -> None:
    """Turns off dropout, which may be a number of a module's, layers that are left out in training
    and features that are masked."""
    for owner in (*model.modules(), getattr(model, "config", None)):
        if isinstance(owner, nn.Dropout):
            owner.p = 0.0
        elif owner is not None:
            for name, value in list(vars(owner).items()):
                if isinstance(value, float) and ("drop" in name or name in _MASKING):
                    setattr(owner, name, 0.0)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """The model's own loss, or else the projection of its outputs."""
    outputs = dict(_outputs(model, batch))
    if "loss" in outputs:
        return outputs["loss"]
    total = torch.zeros((), device=next(model.parameters()).device)
    for output in outputs.values():
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(output.shape, generator=generator).to(output)
        total = total + (output * weights).mean()
    return total


def _outputs(model: nn.Module, batch: Batch) -> Iterable[tuple[str, Tensor]]:
    """Floating outputs by name; those of tokens (B, S, ...) at real tokens alone."""
    found = model(**batch)
    if isinstance(found, Tensor):
        found = {"output": found}
    elif not isinstance(found, Mapping):
        found = {f"output {i}": output for i, output in enumerate(found)}
    for name, output in found.items():
        if isinstance(output, Tensor) and output.is_floating_point():
            mask = _mask_of(model, batch, name, output)
            of_tokens = mask is not None and output.ndim > 1 and output.shape[:2] == mask.shape
            yield name, output[mask.bool()] if of_tokens else output


def _mask_of(model: nn.Module, batch: Batch, name: str, output: Tensor) -> Tensor | None:
    """The mask of the tokens whose output this may be."""
    if "src_key_padding_mask" in batch:  # of torch.nn's layers
        return batch["src_key_padding_mask"].logical_not()
    mask = batch.get("attention_mask")
    if "decoder_attention_mask" in batch and not name.startswith("encoder_"):
        return batch["decoder_attention_mask"]
    frames = getattr(model, "_get_feature_vector_attention_mask", None)
    if mask is not None and frames is not None and output.ndim == 3:  # mask: of samples of audio
        return frames(output.shape[1], mask)
    return mask


def batch_size(batch: Batch) -> int:
    return len(next(iter(batch.values())))


def rows_of(batch: Batch, rows: Tensor) -> Batch:
    """Those rows (indices on the CPU); without the columns that are padding in all of them, where
    all tensors of tokens have the mask's shape (B, S)."""
    size = batch_size(batch)
    found = {k: v[rows.to(v.device)] if len(v) == size else v for k, v in batch.items()}
    mask = found.get("attention_mask")
    if mask is None or any(v.ndim > 1 and v.shape[:2] != mask.shape for v in found.values()):
        return found
    used = mask.bool().any(0)
    return {k: v[:, used] if v.ndim > 1 else v for k, v in found.items()}


def _some(batch: Batch, begin: int, count: int) -> Batch:
    """`count` rows from `begin` on, its first row following its last."""
    size = batch_size(batch)
    return rows_of(batch, torch.arange(begin, begin + min(size, count)) % size)


def _gradients(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The gradient of every parameter, summed over parts of the batch, of at least two sequences
    where there are two; small ones part by part. In a small model the parts overlap."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    parts: dict[str, list[Tensor]] = {}
    step = -(-batch_size(batch) // _PIECES)
    large = sum(p.numel() for p in trained.values()) > LARGE
    for begin in range(0, batch_size(batch), step + large):
        loss(model, _some(batch, begin, step + 1)).backward()
        for name, parameter in trained.items():
            if parameter.numel() < _MANY and parameter.grad is not None:
                parts.setdefault(name, []).append(parameter.grad)
                parameter.grad = None
    summed = {name: p.grad for name, p in trained.items() if p.grad is not None}
    model.zero_grad()
    return summed | {name: torch.stack(grads) for name, grads in parts.items()}


def _losses(model: nn.Module, batch: Batch, steps: int, tell: Callable[[str], None]) -> Tensor:
    """The loss before each step of AdamW, on a few sequences at a time: (steps)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=_LEARNING_RATE, fused=True)
    losses = []
    for step in range(steps):
        tell(f"step {step + 1} of {steps}")
        value = loss(model, _some(batch, step * _STEP, _STEP))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.detach())
    return torch.stack(losses)
