"""A batch that fits a model, for `verify` without one: real sentences where there is a tokenizer,
random ids where there is none; random images and sound for models of these."""

import json
import math
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn import IGNORED


def sentences() -> list[str]:
    """The 48 sentences shipped with the package: English prose printed from 1813 to 1898, so in the
    public domain; sentences.jsonl names the book of each."""
    file = resources.files(__package__).joinpath("sentences.jsonl")
    return [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]


def text_inputs(
    model: nn.Module, tokenizer: Any, texts: Sequence[str], length: int = 64
) -> dict[str, Tensor]:
    """What the tokenizer makes of the texts, cut to `length` tokens, padded to the longest: (B, S)
    each."""
    if tokenizer.pad_token is None:  # GPT-2's; the mask hides what stands there
        tokenizer.pad_token = tokenizer.eos_token
    length = _fitting(model, length)
    return dict(
        tokenizer(
            list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
    )


def _fitting(model: nn.Module, length: int) -> int:
    return min(length, getattr(model.config, "max_position_embeddings", length))


def input_name(model: nn.Module) -> str:
    """input_ids, or what else the model reads: pixel_values, input_values (sound)."""
    return getattr(model, "main_input_name", "input_ids")


def random_inputs(model: nn.Module, size: int = 16, length: int = 48) -> dict[str, Tensor]:
    """Random ids of `size` sequences, half of `length` to `length` tokens, padded on the right, and
    their mask and types: (B, S) each. For a model of sound, samples that it hears as so many
    tokens, and their mask: (B, samples). For one of images, `size` of them."""
    config, generator = model.config, torch.Generator().manual_seed(0)
    draw = lambda high, *shape: torch.randint(0, high, shape, generator=generator)
    if input_name(model) == "pixel_values":
        shape = (size, config.num_channels, *_sides(config.image_size))
        return {"pixel_values": torch.randn(shape, generator=generator).to(model.dtype)}
    if input_name(model) == "input_values":
        ends = math.prod(config.conv_stride) * (length - draw(length // 2, size))
        ends[0] = math.prod(config.conv_stride) * length
        mask = (torch.arange(int(ends[0])) < ends[:, None]).long()
        sound = torch.randn(mask.shape, generator=generator) * mask
        return {"input_values": sound.to(model.dtype), "attention_mask": mask}
    seqlen = _fitting(model, length)
    lengths = seqlen - draw(seqlen // 2, size)
    lengths[0] = seqlen
    inputs = {
        "input_ids": draw(config.vocab_size, size, seqlen),
        "attention_mask": (torch.arange(seqlen) < lengths[:, None]).long(),
    }
    if getattr(config, "type_vocab_size", 0):
        inputs["token_type_ids"] = draw(config.type_vocab_size, size, seqlen)
    return inputs


def _sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def example_batch(model: nn.Module, inputs: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """`inputs` (default: random ids padded on the right) and the labels of the model's head, which
    transformers' class name tells (`BertForMaskedLM`); a base model has none."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # of PEFT
    name = type(model).__name__
    head = "CausalLM" if name.endswith("LMHeadModel") else name.partition("For")[2]
    config, generator = model.config, torch.Generator().manual_seed(0)
    draw = lambda high, *shape: torch.randint(0, high, shape, generator=generator)
    if inputs is None:
        inputs = random_inputs(model)
    if head == "MultipleChoice":  # each sequence and its neighbour: (B, 2, S)
        inputs = {name: torch.stack((x, x.roll(1, 0)), 1) for name, x in inputs.items()}
    if input_name(model) != "input_ids":
        return inputs | _labels(model, head, inputs, draw)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    rows, lengths = len(ids), mask.sum(-1)
    seq2seq = getattr(config, "is_encoder_decoder", False)
    if seq2seq and config.eos_token_id is not None:  # heads look for the only one
        ids = _ended(ids, mask, config.eos_token_id, config.vocab_size)
        inputs = inputs | {"input_ids": ids}
    match head:
        case "MaskedLM" | "PreTraining" | "TokenClassification":
            chosen = (draw(4, *ids.shape) == 0) & mask.bool()
            chosen |= mask.bool() & (mask.cumsum(1) == 1)  # each sequence has a label
            classes = config.num_labels if head == "TokenClassification" else config.vocab_size
            inputs = inputs | {"labels": draw(classes, *ids.shape).where(chosen, IGNORED)}
            if head == "PreTraining":
                inputs["next_sentence_label"] = draw(2, rows)
        case "CausalLM" | "ConditionalGeneration":
            inputs = inputs | {"labels": ids.where(mask.bool(), IGNORED)}
        case "SequenceClassification":
            problem = config.problem_type or ("regression" if config.num_labels == 1 else "single")
            single = problem.startswith("single")
            labels = draw(config.num_labels, rows) if single else draw(2, rows, config.num_labels)
            inputs = inputs | {"labels": labels if single else labels.float()}
        case "NextSentencePrediction" | "MultipleChoice":
            inputs = inputs | {"labels": draw(2, rows)}
        case "QuestionAnswering":
            inputs = inputs | {"start_positions": lengths // 4, "end_positions": lengths // 2}
        case "ConditionalGeneration":
            inputs = inputs | {"labels": ids.where(mask.bool(), IGNORED)}
        case "" if seq2seq:
            inputs = inputs | {"decoder_input_ids": ids}
    return inputs


def _ended(ids: Tensor, mask: Tensor, end: int, vocabulary: int) -> Tensor:
    """ids (B, S), the last real one of each sequence and no other its end."""
    last = (mask.cumsum(1) == mask.sum(1, keepdim=True)) & mask.bool()
    return ids.masked_fill(ids == end, (end + 1) % vocabulary).masked_fill(last, end)


def _labels(
    model: nn.Module, head: str, inputs: dict[str, Tensor], draw: Callable[..., Tensor]
) -> dict[str, Tensor]:
    """Of a model of images or sound; none for CTC, whose loss in fp32 errs more than the model."""
    config, rows = model.config, len(inputs[input_name(model)])
    match head:
        case "ImageClassification" | "SequenceClassification" | "XVector":
            return {"labels": draw(config.num_labels, rows)}
        case "MaskedImageModeling":
            sides = zip(_sides(config.image_size), _sides(config.patch_size))
            patches = math.prod(image // patch for image, patch in sides)
            return {"bool_masked_pos": draw(2, rows, patches).bool()}
        case "AudioFrameClassification":
            frames = model._get_feat_extract_output_lengths(inputs["attention_mask"].shape[1])
            return {"labels": F.one_hot(draw(config.num_labels, rows, frames), config.num_labels)}
    return {}
