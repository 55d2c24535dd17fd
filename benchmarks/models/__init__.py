"""`bigfast bench model`: a model's workloads, each with its rivals, from random weights."""

import difflib
import json
from collections.abc import Mapping
from typing import Any

import torch
from transformers import BertConfig, GPT2Config
from transformers.utils import logging

from bigfast.train.memory import keep_freed_memory

from .. import machine
from ..rows import Row, add_shares
from ..run import Tell
from ..shapes import OURS, model
from . import bert, gpt2
from .workload import Workload

FORMULA = (
    "FLOPs: 6 W T for W weights of the layers' matrices on T real tokens, 6 W R for the head on R "
    "labelled rows, and 12 L N S^2 for the attention of a sequence of S (half of it causal); a "
    "third of it in inference; nothing for padding or recomputation. Bytes of decoding: each "
    "weight once per token."
)


def find(name: str) -> BertConfig | GPT2Config:
    """The configuration of a model by its name; ValueError for any other name."""
    if name not in OURS:
        close = difflib.get_close_matches(name, OURS, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ValueError(
            f"model {name!r} is no folder, and not a name; {hint}there are {', '.join(OURS)}"
        )
    size = model(name)
    if name.startswith("gpt2"):
        return GPT2Config(
            vocab_size=size.vocab, n_embd=size.hidden, n_layer=size.layers, n_head=size.heads
        )
    return BertConfig(
        vocab_size=size.vocab, hidden_size=size.hidden, intermediate_size=size.inner,
        num_hidden_layers=size.layers, num_attention_heads=size.heads,
    )  # fmt: skip


def read(values: Mapping[str, Any], folder: str) -> BertConfig | GPT2Config:
    """The configuration in a folder's config.json; ValueError where transformers has no rival."""
    known = {"bert": BertConfig, "gpt2": GPT2Config}
    kind = values.get("model_type")
    if kind not in known:
        raise ValueError(f"{folder}: model_type {kind!r} is not one of {', '.join(known)}")
    return known[kind].from_dict(dict(values))


def workloads(config: BertConfig | GPT2Config, device: torch.device, quick: bool) -> list[Workload]:
    """Of a model; `quick`: without what torch.compile would have to compile."""
    family = gpt2 if config.model_type == "gpt2" else bert
    return family.workloads(config, device, quick)


def measure(
    name: str,
    config: BertConfig | GPT2Config,
    device: torch.device,
    quick: bool,
    tell: Tell = lambda *_: None,
) -> dict[str, Any]:
    """A result: the rows of every workload of the model, and the breakdown of its step."""
    found = workloads(config, device, quick)
    result = measure_all(name, found[:1] if quick else found, device, quick, tell)
    result["settings"]["config"] = json.loads(config.to_json_string())
    return result


def measure_all(
    name: str, found: list[Workload], device: torch.device, quick: bool, tell: Tell
) -> dict[str, Any]:
    """A result: the rows of these workloads."""
    keep_freed_memory()  # for all alike; our trainer does it too
    logging.set_verbosity_error()
    tell("this machine's peaks", 0, len(found))
    before = machine.peaks(device)
    rows: list[Row] = []
    breakdown: list[dict[str, Any]] = []
    for done, workload in enumerate(found):
        tell(f"{name}, {workload.direction}, {workload.shape}", done, len(found))
        torch.manual_seed(0)
        rows += workload.rows(name, device, quick, breakdown)
    tell("the peaks again", len(found), len(found))
    described = machine.describe(device, before)
    add_shares(rows, described["peaks"])
    return {
        "kind": "model", "machine": described,
        "settings": {"quick": quick},
        "formulas": {name: FORMULA}, "rows": rows, "breakdown": breakdown,
    }  # fmt: skip
