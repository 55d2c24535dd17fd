"""A batch that fits a model, for `verify` without one."""

import torch
from torch import Tensor, nn

from ..nn import IGNORED

_BATCH, _SEQLEN = 16, 48


def example_batch(model: nn.Module) -> dict[str, Tensor]:
    """Random ids padded on the right, and the labels of the model's head, which transformers' class
    name tells (`BertForMaskedLM`); a base model has none."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # of PEFT
    head = type(model).__name__.partition("For")[2]
    config, generator = model.config, torch.Generator().manual_seed(0)
    draw = lambda high, *shape: torch.randint(0, high, shape, generator=generator)
    seqlen = min(_SEQLEN, config.max_position_embeddings)
    shape = (_BATCH, 2, seqlen) if head == "MultipleChoice" else (_BATCH, seqlen)
    lengths = seqlen - draw(seqlen // 2, *shape[:-1])
    lengths[0] = seqlen
    mask = (torch.arange(seqlen) < lengths[..., None]).long()
    inputs = {"input_ids": draw(config.vocab_size, *shape), "attention_mask": mask}
    if getattr(config, "type_vocab_size", 0):
        inputs["token_type_ids"] = draw(config.type_vocab_size, *shape)
    match head:
        case "MaskedLM" | "PreTraining" | "TokenClassification":
            chosen = (draw(4, *shape) == 0) & mask.bool()
            chosen[:, 0] = True  # each sequence has a label
            classes = config.num_labels if head == "TokenClassification" else config.vocab_size
            inputs["labels"] = draw(classes, *shape).where(chosen, IGNORED)
            if head == "PreTraining":
                inputs["next_sentence_label"] = draw(2, _BATCH)
        case "SequenceClassification":
            problem = config.problem_type or ("regression" if config.num_labels == 1 else "single")
            if problem.startswith("single"):
                inputs["labels"] = draw(config.num_labels, _BATCH)
            else:
                inputs["labels"] = draw(2, _BATCH, config.num_labels).float()
        case "NextSentencePrediction" | "MultipleChoice":
            inputs["labels"] = draw(2, _BATCH)
        case "QuestionAnswering":
            inputs |= {"start_positions": lengths // 4, "end_positions": lengths // 2}
    return inputs
