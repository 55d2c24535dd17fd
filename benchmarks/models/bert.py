"""BERT's workloads: a masked-LM step, a fine-tuning step on real lengths, and inference.

The rivals are transformers' BERT in its best settings that need no code of ours: bf16 autocast, the
labelled rows gathered before the head, pure bf16, the encoder compiled, batches grouped by length;
all with torch's fused AdamW.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig as StockConfig
from transformers import BertForMaskedLM as StockMaskedLM
from transformers import BertForSequenceClassification as StockClassifier

import bigfast
from bigfast.models import BertConfig, BertForMaskedLM, BertForSequenceClassification
from bigfast.optim import AdamW

from ..rivals import compiled, onnx_runtime
from ..shapes import batch as scaled
from ..shapes import length as fitting
from ..shapes import sst2_lengths
from .training import (
    LEARNING_RATE,
    Batch,
    entry,
    full_loss,
    our_config,
    our_steps,
    ours_like,
    real_tokens,
    stock_adamw,
    stock_steps,
)
from .workload import Entry, Workload

BATCH, LENGTH = 8, 128
SENTENCES = 32
POOL = 50  # batches that transformers' Trainer sorts at a time when it groups by length
GROUPS = (8, 25, 41)  # of the sorted batches: short, middle and long ones
BYTES = 44  # a parameter: weights, gradients and states of all implementations


def workloads(config: StockConfig, device: torch.device, quick: bool) -> list[Workload]:
    length = fitting(min(LENGTH, config.max_position_embeddings))
    rows, sentences = scaled(BATCH, device), scaled(SENTENCES, device)
    with torch.device("meta"):
        ours = BertForMaskedLM(our_config(BertConfig, config))
        classifier = BertForSequenceClassification(our_config(BertConfig, config))
    bytes_needed = BYTES * sum(p.numel() for p in ours.parameters())
    tokens = rows * length
    labelled = round(0.15 * tokens)
    random, grouped = sentence_batches(config, device, sentences)
    per_step = real_tokens(random) // len(random)
    pairs = sum(int(b["attention_mask"].sum(1).square().sum()) for b in random) // len(random)
    one = masked_batch(config, length, device, 1)
    return [
        Workload(
            f"masked LM, {rows} x {length} full rows, 15 % labelled, dropout 0.1", "step",
            partial(masked_lm, config, masked_batch(config, length, device, rows), quick), tokens,
            ours.flops(tokens, rows * length**2, labelled),
            bytes_needed=bytes_needed, profiled=True,
        ),
        Workload(
            f"fine-tuning, {sentences} sentences of SST-2, dropout 0.1", "step",
            partial(fine_tuning, config, random, grouped), per_step,
            classifier.flops(per_step, pairs, sentences), bytes_needed=bytes_needed,
        ),
        encoding(config, one, f"1 x {length}", device, quick),
        encoding(config, one, f"1 x {length}", device, quick, "float32"),
        encoding(config, random[0], f"{sentences} sentences of SST-2", device, quick),
    ]  # fmt: skip


# Batches ------------------------------------------------------------------------------------------


def masked_batch(config: StockConfig, length: int, device: torch.device, rows: int) -> Batch:
    """Random tokens, of which exactly 15 % are labelled."""
    ids = torch.randint(config.vocab_size // 30, config.vocab_size, (rows, length))
    labels = torch.full_like(ids, -100)
    chosen = torch.randperm(ids.numel())[: round(0.15 * ids.numel())]
    labels.view(-1)[chosen] = ids.view(-1)[chosen]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    return {name: t.to(device) for name, t in batch.items()}


def sentence_batches(
    config: StockConfig, device: torch.device, sentences: int = SENTENCES
) -> tuple[list[Batch], list[Batch]]:
    """`pooled_batches` of sentences with SST-2's lengths."""
    return pooled_batches(config, device, sst2_lengths(POOL * sentences))


def pooled_batches(
    config: StockConfig, device: torch.device, lengths: Tensor
) -> tuple[list[Batch], list[Batch]]:
    """As many batches drawn at random as grouped by length, each padded to its longest; both of one
    pool of sequences of these lengths (POOL * B)."""
    lengths = lengths.clamp(max=fitting(config.max_position_embeddings))
    sorted_batches = lengths.sort().values.view(POOL, -1)

    def batch(lengths: Tensor) -> Batch:
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        made = {
            "input_ids": torch.randint(1, config.vocab_size, mask.shape) * mask,
            "attention_mask": mask.long(),
            "labels": torch.randint(0, 2, (len(lengths),)),
        }
        return {name: t.to(device) for name, t in made.items()}

    random = [batch(drawn) for drawn in lengths.view(POOL, -1)[: len(GROUPS)]]
    return random, [batch(sorted_batches[i]) for i in GROUPS]


# Implementations ----------------------------------------------------------------------------------


def gathered_loss(
    model: StockMaskedLM, batch: Batch, encoder: Callable[..., tuple] | None = None
) -> Tensor:
    """What a careful user of transformers writes: the head sees the labelled rows alone."""
    encode = model.bert if encoder is None else encoder
    hidden = encode(batch["input_ids"], attention_mask=batch["attention_mask"])[0]
    labelled = batch["labels"] != -100
    logits = model.cls(hidden[labelled])
    return F.cross_entropy(logits.float(), batch["labels"][labelled])


def twins(
    stock: nn.Module, cls: type, config: StockConfig
) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module]:
    """Of the fp32 `stock`: itself in bf16, itself swapped, ours in fp32 and in bf16. Those of one
    dtype share their Parameters, so that a large model's implementations fit in memory."""
    bf16 = copy.deepcopy(stock).to(torch.bfloat16)
    swapped = copy.deepcopy(stock, memo={id(p): p for p in stock.parameters()})
    bigfast.swap(swapped)
    values = our_config(BertConfig, config)
    return bf16, swapped, ours_like(cls, values, stock), ours_like(cls, values, bf16)


def masked_lm(config: StockConfig, batch: Batch, quick: bool) -> dict[str, Entry]:
    stock = StockMaskedLM(config).to(batch["input_ids"].device).train()
    bf16, swapped, ours, ours_bf16 = twins(stock, BertForMaskedLM, config)
    optimizer, bf16_optimizer = stock_adamw(stock), stock_adamw(bf16)
    our_optimizer = AdamW(ours.parameters(), lr=LEARNING_RATE)
    our_bf16_optimizer = AdamW(ours_bf16.parameters(), lr=LEARNING_RATE)

    def of_stock(model, optimizer, loss_of, autocast, was_compiled=False) -> Entry:
        call = stock_steps(model, optimizer, [batch], loss_of, autocast)
        # A compiled model is checked uncompiled: once more to compile it would take a minute.
        checked = gathered_loss if was_compiled else loss_of
        return entry(call, model, [batch], checked, autocast, batch, was_compiled)

    def of_ours(model, optimizer, autocast) -> Entry:
        call = our_steps(model, optimizer, [batch], autocast)
        return entry(call, model, [batch], full_loss, autocast, batch)

    entries = {
        "stock autocast": of_stock(stock, optimizer, full_loss, True),
        "stock autocast, gathered": of_stock(stock, optimizer, gathered_loss, True),
        "stock pure bf16, gathered": of_stock(bf16, bf16_optimizer, gathered_loss, False),
        "bigfast bf16-autocast": of_ours(ours, our_optimizer, True),
        "bigfast bf16-master": of_ours(ours_bf16, our_bf16_optimizer, False),
        "bigfast swap, autocast": of_ours(swapped, our_optimizer, True),
    }
    if not quick:
        fast = partial(gathered_loss, encoder=compiled(stock.bert))
        entries["stock autocast, gathered, compiled"] = of_stock(stock, optimizer, fast, True, True)
    return entries


def fine_tuning(config: StockConfig, random: list[Batch], grouped: list[Batch]) -> dict[str, Entry]:
    shared = random[0]
    stock = StockClassifier(config).to(shared["input_ids"].device).train()
    bf16, swapped, ours, ours_bf16 = twins(stock, BertForSequenceClassification, config)
    optimizer, bf16_optimizer = stock_adamw(stock), stock_adamw(bf16)
    our_optimizer = AdamW(ours.parameters(), lr=LEARNING_RATE)
    our_bf16_optimizer = AdamW(ours_bf16.parameters(), lr=LEARNING_RATE)

    def of_stock(model, optimizer, batches, autocast) -> Entry:
        call = stock_steps(model, optimizer, batches, full_loss, autocast)
        return entry(call, model, batches, full_loss, autocast, shared)

    def of_ours(model, optimizer, autocast) -> Entry:
        call = our_steps(model, optimizer, random, autocast)
        return entry(call, model, random, full_loss, autocast, shared)

    return {
        "stock autocast, padded": of_stock(stock, optimizer, random, True),
        "stock autocast, grouped by length": of_stock(stock, optimizer, grouped, True),
        "stock pure bf16, grouped by length": of_stock(bf16, bf16_optimizer, grouped, False),
        "bigfast bf16-autocast": of_ours(ours, our_optimizer, True),
        "bigfast bf16-master": of_ours(ours_bf16, our_bf16_optimizer, False),
        "bigfast swap, autocast": of_ours(swapped, our_optimizer, True),
    }


def encoding(
    config: StockConfig,
    batch: Batch,
    shape: str,
    device: torch.device,
    quick: bool,
    dtype: str = "bfloat16",
) -> Workload:
    """The encoder alone; its outputs at real tokens are held against a wider dtype's."""
    mask = batch["attention_mask"]
    torch.manual_seed(0)
    with torch.device("meta"):
        ours = BertForMaskedLM(our_config(BertConfig, config))
    tokens, pairs = int(mask.sum()), int(mask.sum(1).square().sum())
    inputs = {"input_ids": batch["input_ids"], "attention_mask": mask}
    state: dict[str, nn.Module] = {}

    @torch.inference_mode()
    def encode(model: Callable, autocast: bool = False) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            return model(**inputs).last_hidden_state[mask.bool()]

    def build() -> dict[str, Entry]:
        torch.manual_seed(0)
        stock = StockMaskedLM(config).to(device).eval()
        bf16, swapped, ours, ours_bf16 = twins(stock, BertForMaskedLM, config)
        state["stock"] = stock.bert
        entry = lambda model, autocast=False: Entry(
            partial(encode, model, autocast), partial(encode, model, autocast), tokens
        )
        if dtype == "float32":
            entries = {
                "stock fp32": entry(stock.bert),
                "bigfast fp32": entry(ours.bert.eval()),
                "bigfast swap, fp32": entry(swapped.bert),
            }
            plain = stock.bert
        else:
            entries = {
                "stock autocast": entry(stock.bert, True),
                "stock pure bf16": entry(bf16.bert),
                "bigfast bf16": entry(ours_bf16.bert.eval()),
                "bigfast swap, bf16": entry(copy.deepcopy(swapped.bert).to(torch.bfloat16)),
            }
            plain = bf16.bert
        if not quick:
            name = "stock pure bf16" if plain is bf16.bert else "stock fp32"
            entries[f"{name}, compiled"] = Entry(
                partial(encode, compiled(plain)), partial(encode, plain), tokens, compiled=True
            )
            if dtype == "float32" and device.type == "cpu":
                entries |= _exported(plain, inputs, tokens)
        return entries

    wide = lambda: encode(
        copy.deepcopy(state["stock"]).double() if dtype == "float32" else state["stock"]
    )
    return Workload(
        shape, "inference", build, tokens, ours.flops(tokens, pairs) / 3, truth=wide,
        plain="stock fp32" if dtype == "float32" else "stock pure bf16", dtype=dtype,
    )  # fmt: skip


def _exported(stock: nn.Module, inputs: Batch, tokens: int) -> dict[str, Entry]:
    """ONNX Runtime, where it is installed; a full batch alone, from which nothing is picked."""
    call = onnx_runtime(stock, *inputs.values())
    if call is None:
        return {}
    run = lambda: call(*inputs.values()).flatten(0, 1)
    return {"ONNX Runtime": Entry(run, run, tokens)}
