"""What the models return, and how a loss of several components is put together."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import ops
from ..nn import IGNORED

Count = int | float | Tensor


@dataclass
class ModelOutput:
    """The result of a model's forward; None for what the model or the call does not give.

    loss: scalar, the sum over components of (its sum / its count); see `combine`.
    loss_sums: each component's sum over its labelled items, fp32 scalars. A caller that weighs
        them by counts of its own (those of a whole optimizer step, say) uses these.
    logits: (B, S, V) or (T, V), or (B, L) of a classifier; zeros at padding.
    seq_relationship_logits: (B, 2), of next sentence prediction.
    last_hidden_state: (B, S, N) or (T, N); zeros at padding.
    pooler_output: (B, N).
    """

    loss: Tensor | None = None
    loss_sums: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    seq_relationship_logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None


def combine(
    components: Mapping[str, tuple[Tensor, Count]],
    num_items_in_batch: Count | Mapping[str, Count] | None,
) -> tuple[Tensor | None, dict[str, Tensor] | None]:
    """(loss, loss_sums) of components {name: (sum, labelled items)}; (None, None) of none.

    Each sum is divided by its own number of labelled items (no item gives nan, as in torch) or, for
    gradient accumulation, by `num_items_in_batch`: one number, or a mapping from component to
    number, which more than one component needs.
    """
    if not components:
        return None, None
    counts: Mapping[str, Count]
    if num_items_in_batch is None:
        counts = {name: count for name, (_, count) in components.items()}
    elif isinstance(num_items_in_batch, Mapping):
        counts = num_items_in_batch
    else:
        counts = dict.fromkeys(components, num_items_in_batch)
        if len(components) > 1:
            raise ValueError(
                f"num_items_in_batch must map each of {', '.join(components)} to its number, got "
                f"{num_items_in_batch!r}"
            )
    missing = [name for name in components if name not in counts]
    if missing:
        raise ValueError(f"num_items_in_batch lacks {', '.join(missing)}")
    sums = {name: total for name, (total, _) in components.items()}
    return torch.stack([total / counts[name] for name, total in sums.items()]).sum(), sums


def skips_logits(skip_logits: bool | None, training: bool, has_labels: bool) -> bool:
    """Whether the logits of every token are left out: None skips them when training with labels.

    Raises ValueError for skip_logits=True without labels, where nothing would be left.
    """
    if skip_logits and not has_labels:
        raise ValueError("skip_logits=True needs labels: without them only logits are computed")
    return training and has_labels if skip_logits is None else skip_logits


def labelled_sum(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the cross entropies of logits (R, C) over rows with a label, and their number."""
    if logits.shape[-1] == 1:
        raise ValueError("labels: one class means regression in transformers, not supported here")
    return ops.cross_entropy(logits, labels, reduction="sum"), labels.ne(IGNORED).sum()
