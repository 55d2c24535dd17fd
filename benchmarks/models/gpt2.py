"""GPT-2's workloads: a training step, the forward pass of a prompt, and decoding with a cache.

The rivals are transformers' GPT-2 under bf16 autocast, in pure bf16 and compiled, with torch's
fused AdamW.
"""

import copy
from functools import partial

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

import bigfast
from bigfast.models import GPTConfig, GPTForCausalLM
from bigfast.optim import AdamW

from ..rivals import compiled
from ..shapes import batch as scaled
from ..shapes import length as fitting
from .training import (
    LEARNING_RATE,
    Batch,
    entry,
    full_loss,
    our_config,
    our_steps,
    ours_like,
    stock_adamw,
    stock_steps,
)
from .workload import Entry, Workload

BATCH, LENGTH = 2, 512
PROMPT, NEW = 64, 32
BYTES = 52  # a parameter: weights, gradients and states of all implementations


def workloads(config: GPT2Config, device: torch.device, quick: bool) -> list[Workload]:
    length = fitting(min(LENGTH, config.n_positions))
    rows = scaled(BATCH, device)
    with torch.device("meta"):
        ours = GPTForCausalLM(our_config(GPTConfig, config))
    parameters = sum(p.numel() for p in ours.parameters())
    tokens = rows * length
    prompt, new = (fitting(min(n, config.n_positions // 2)) for n in (PROMPT, NEW))
    return [
        Workload(
            f"causal LM, {rows} x {length}, dropout 0.1", "step",
            partial(causal_lm, config, make_batch(config, rows, length, device), quick), tokens,
            ours.flops(tokens, rows * length**2, tokens - rows),
            bytes_needed=BYTES * parameters, profiled=True,
        ),
        inference(config, make_batch(config, 1, length, device), 0, ours, quick),
        inference(config, make_batch(config, 1, prompt, device), new, ours, quick),
    ]  # fmt: skip


def make_batch(config: GPT2Config, rows: int, length: int, device: torch.device) -> Batch:
    ids = torch.randint(0, config.vocab_size, (rows, length)).to(device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def stock_loss(model: GPT2LMHeadModel, batch: Batch) -> Tensor:
    return model(input_ids=batch["input_ids"], labels=batch["labels"], use_cache=False).loss


def causal_lm(config: GPT2Config, batch: Batch, quick: bool) -> dict[str, Entry]:
    stock = GPT2LMHeadModel(config).to(batch["input_ids"].device).train()
    bf16 = copy.deepcopy(stock).to(torch.bfloat16)
    values = our_config(GPTConfig, config)
    ours, ours_bf16 = (ours_like(GPTForCausalLM, values, of) for of in (stock, bf16))
    optimizer = stock_adamw(stock)

    def of_stock(model, optimizer, autocast, forward=None) -> Entry:
        loss_of = stock_loss if forward is None else lambda _, batch: stock_loss(forward, batch)
        call = stock_steps(model, optimizer, [batch], loss_of, autocast)
        was_compiled = forward is not None
        return entry(call, model, [batch], stock_loss, autocast, batch, was_compiled)

    def of_ours(model, autocast) -> Entry:
        optimizer = AdamW(model.parameters(), lr=LEARNING_RATE)
        call = our_steps(model, optimizer, [batch], autocast)
        return entry(call, model, [batch], full_loss, autocast, batch)

    entries = {
        "stock autocast": of_stock(stock, optimizer, True),
        "stock pure bf16": of_stock(bf16, stock_adamw(bf16), False),
        "bigfast bf16-autocast": of_ours(ours, True),
        "bigfast bf16-master": of_ours(ours_bf16, False),
    }
    if (swapped := swap(stock)) is not None:
        entries["bigfast swap, autocast"] = of_ours(swapped, True)
    if not quick:
        entries["stock autocast, compiled"] = of_stock(stock, optimizer, True, compiled(stock))
    return entries


def swap(stock: GPT2LMHeadModel) -> GPT2LMHeadModel | None:
    """A swapped copy that shares the Parameters; None where `swap` does not know GPT-2."""
    swapped = copy.deepcopy(stock, memo={id(p): p for p in stock.parameters()})
    try:
        bigfast.swap(swapped)
    except ValueError:
        return None
    return swapped


def inference(
    config: GPT2Config, batch: Batch, new: int, ours: GPTForCausalLM, quick: bool
) -> Workload:
    """The logits of a prompt in bf16 (new = 0), or greedy decoding of `new` tokens after it."""
    ids = batch["input_ids"]
    length = ids.shape[1]
    state: dict[str, GPT2LMHeadModel] = {}

    @torch.inference_mode()
    def logits(model) -> Tensor:
        return model(input_ids=ids).logits

    @torch.inference_mode()
    def decode(model) -> object:
        if isinstance(model, GPTForCausalLM):
            return model.generate(ids, max_new_tokens=new, eos_token_id=-1)
        return model.generate(
            ids, attention_mask=batch["attention_mask"], max_new_tokens=new, min_new_tokens=new,
            do_sample=False, pad_token_id=config.eos_token_id,
        )  # fmt: skip

    def build() -> dict[str, Entry]:
        torch.manual_seed(0)
        stock = state["stock"] = GPT2LMHeadModel(config).to(ids.device).eval()
        bf16 = copy.deepcopy(stock).to(torch.bfloat16)
        models = {
            "stock pure bf16": bf16,
            "bigfast bf16": ours_like(GPTForCausalLM, our_config(GPTConfig, config), bf16).eval(),
        }
        run, tokens = (decode, new) if new else (logits, length)
        entries = {
            name: Entry(partial(run, model), partial(logits, model), tokens)
            for name, model in models.items()
        }
        if not new and not quick:
            entries["stock pure bf16, compiled"] = Entry(
                partial(run, compiled(bf16)), partial(logits, bf16), tokens, compiled=True
            )
        return entries

    truth = lambda: logits(state["stock"])
    if new:
        weights = 2.0 * sum(p.numel() for p in ours.parameters()) * new
        shape = f"{new} tokens after {length}, one sequence"
        return Workload(shape, "decoding", build, new, weights, "GB/s", truth=truth)
    amount = ours.flops(length, length**2, length) / 3
    return Workload(f"1 x {length}", "inference", build, length, amount, truth=truth)
