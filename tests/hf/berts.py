"""Small BERTs of transformers, with random weights in every parameter, and batches for them."""

import torch
import transformers
from torch import Tensor

SIZES = {
    "vocab_size": 101, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 32, "initializer_range": 0.1,
}  # fmt: skip
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make(kind: str = "BertForMaskedLM", **changes):
    """A stock model in eval mode; dropout 0.1 as BERT's default."""
    model = getattr(transformers, kind)(transformers.BertConfig(**(SIZES | changes)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def batch(padding: str = "right", size: int = 8, seqlen: int = 20) -> dict[str, Tensor]:
    """Ids and a mask with `padding` none, left, right or middle; the first row has none."""
    mask = torch.ones(size, seqlen, dtype=torch.int64)
    for row, cut in enumerate(torch.randint(1, seqlen // 2, (size,)).tolist()):
        start = {"left": 0, "right": seqlen - cut, "middle": seqlen // 3, "none": seqlen}[padding]
        mask[row, start : start + cut] = 0
    mask[0] = 1
    ids = torch.randint(1, SIZES["vocab_size"], (size, seqlen))
    return {"input_ids": ids, "attention_mask": mask}


def token_labels(inputs: dict[str, Tensor], classes: int = SIZES["vocab_size"]) -> Tensor:
    """Labels on the first real tokens of each row and some more, -100 elsewhere."""
    mask = inputs["attention_mask"].bool()
    chosen = mask & ((torch.rand(mask.shape) < 0.3) | (mask.cumsum(1) == 1))
    return torch.randint(0, classes, mask.shape).where(chosen, -100)


def gradients(model, **inputs) -> dict[str, Tensor]:
    model.zero_grad()
    model(**inputs).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
