"""The same network here and in transformers, and the policy that compares them."""

import re
from collections import defaultdict
from contextlib import nullcontext

import pytest
import torch
import transformers
from check import check
from torch import Tensor

from bigfast.ops import library, registry

BERT = {
    "vocab_size": 131, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 96, "max_position_embeddings": 64, "num_labels": 3,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.1,
}  # fmt: skip
GPT2 = {
    "vocab_size": 131, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64,
    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "initializer_range": 0.1,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
MODES = ("float32", "bfloat16", "autocast")
BACKENDS = [
    "reference",
    pytest.param(
        "cpp", marks=pytest.mark.skipif(library.NATIVE_MISSING is not None, reason="not built")
    ),
]


def make(kind: str, **changes):
    """A transformers model with random weights, biases and norms included."""
    family = transformers.BertConfig if kind.startswith("Bert") else transformers.GPT2Config
    sizes = BERT if kind.startswith("Bert") else GPT2
    model = getattr(transformers, kind)(family(**(sizes | changes)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def save(model, directory) -> str:
    model.save_pretrained(directory)
    return str(directory)


def batch(batch_size: int, seqlen: int, padding: str = "right") -> dict[str, Tensor]:
    """Ids and a mask with `padding` none, left, right or middle."""
    ids = torch.randint(1, BERT["vocab_size"], (batch_size, seqlen))
    mask = torch.ones(batch_size, seqlen, dtype=torch.int64)
    for row, cut in enumerate(torch.randint(1, seqlen // 2, (batch_size,)).tolist()):
        if row == 0 or padding == "none":
            continue
        start = {"left": 0, "right": seqlen - cut, "middle": seqlen // 3}[padding]
        mask[row, start : start + cut] = 0
    return {"input_ids": ids, "attention_mask": mask}


def token_labels(inputs: dict[str, Tensor], classes: int, rate: float = 0.3) -> Tensor:
    """Random labels on some real tokens, -100 elsewhere."""
    shape = inputs["input_ids"].shape
    chosen = (torch.rand(shape) < rate) & inputs["attention_mask"].bool()
    return torch.randint(0, classes, shape).where(chosen, -100)


def gradients(model, loss: Tensor) -> dict[str, Tensor]:
    """Gradients by name; transformers' products (in, out) turned to ours."""
    model.zero_grad()
    loss.backward()
    turned = transformers.pytorch_utils.Conv1D
    conv = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, turned)}
    return {
        name: p.grad.T if name in conv else p.grad
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def check_pair(ours_class, stock, directory, mode: str, backend: str, make_inputs, run) -> None:
    """Values and gradients of ours against stock's in fp64, by the one policy.

    The plain model is stock in the same mode. The weights are bf16 numbers, so all have the same
    truth.
    make_inputs() -> a batch; run(model, is_ours, batch) -> (list of outputs, loss).
    """
    batches = [make_inputs() for _ in range(8)]  # of a single one the largest error is chance
    stock = stock.bfloat16().eval()
    if mode != "bfloat16":
        stock = stock.float()
    ours = ours_class.from_pretrained(save(stock, directory))
    autocast = torch.autocast("cpu", dtype=torch.bfloat16) if mode == "autocast" else nullcontext()
    with autocast, registry.backend(backend):
        got = _results(ours, True, batches, run)
    plains = []
    # Both are plain torch, and equally exact: two samples of what its largest error may be.
    for attention in ("sdpa", "eager"):
        stock.set_attn_implementation(attention)
        with autocast:
            plains.append(_results(stock, False, batches, run))
    truth = _results(stock.double(), False, batches, run)
    assert got.keys() == truth.keys()
    for name, result in got.items():
        errors = [(plain[name] - truth[name]).abs().nan_to_num().max() for plain in plains]
        check(result, plains[errors.index(max(errors))][name], truth[name], name)


def _results(model, is_ours: bool, batches: list[dict], run) -> dict[str, Tensor]:
    """Outputs and gradients of all batches (of one kind of parameter in all layers together), and
    the loss of each sequence alone."""
    collected = defaultdict(list)
    for inputs in batches:
        outputs, loss = run(model, is_ours, inputs)
        for i, output in enumerate(outputs):
            collected[f"output {i}"].append(output)
        for name, gradient in gradients(model, loss).items():
            kind = re.sub(r"\.\d+\.", ".*.", name)
            collected[f"gradient of {kind}"].append(gradient)
        with torch.no_grad():
            for b in range(len(inputs["input_ids"])):
                _, loss = run(model, is_ours, {k: v[b : b + 1] for k, v in inputs.items()})
                collected["loss"].append(loss[None])
    return {name: torch.cat(parts) for name, parts in collected.items()}
