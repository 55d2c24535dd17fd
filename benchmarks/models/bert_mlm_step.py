"""BERT-base masked-LM training step: python -m bigfast.benchmarks.models.bert_mlm_step

12 layers, 8 x 128 full rows, 15 % labelled, dropout 0.1; a step is forward, backward, clipping to
norm 1 and AdamW. The rivals are transformers' BERT in its best settings that need no code of ours:
bf16 autocast, autocast with the labelled rows gathered before the head, and pure bf16 with gathered
rows, all with torch's fused AdamW. They and BigFast take turns in one process, whose allocator
keeps freed memory, as our trainer sets it: the rivals gain as much. Before timing, losses with
dropout off must agree.

FLOPs (model, real tokens): 6 T P + 12 L S T N for the encoder (P: parameters of its products), and
6 R (N N + N V) for the head on its R labelled rows.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import BertConfig as StockConfig
from transformers import BertForMaskedLM as StockBert

import bigfast
from bigfast.models.bert import BertConfig, BertForMaskedLM
from bigfast.ops import grad_norm
from bigfast.optim import AdamW
from bigfast.train.memory import keep_freed_memory

from .. import machine
from ..timing import interleave, ratio

Step = Callable[[], Tensor]


def make_batch(batch: int, length: int, vocab: int) -> dict[str, Tensor]:
    """Random tokens, of which exactly 15 % are labelled."""
    ids = torch.randint(1000, vocab, (batch, length))
    labels = torch.full_like(ids, -100)
    chosen = torch.randperm(ids.numel())[: round(0.15 * ids.numel())]
    labels.view(-1)[chosen] = ids.view(-1)[chosen]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def gathered_loss(model: StockBert, batch: dict[str, Tensor]) -> Tensor:
    """What a careful user of transformers writes: the head sees the labelled rows alone."""
    hidden = model.bert(batch["input_ids"], attention_mask=batch["attention_mask"])[0]
    labelled = batch["labels"] != -100
    logits = model.cls(hidden[labelled])
    return nn.functional.cross_entropy(logits.float(), batch["labels"][labelled])


def stock_step(model, batch, loss_of, autocast: bool) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    parameters = list(model.parameters())

    def step() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = loss_of(model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach().float()

    return step


def our_step(model, batch, loss_of, autocast: bool) -> Step:
    optimizer = AdamW(model.parameters(), lr=1e-5)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def step() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = loss_of(model, batch)
        loss.backward()
        norm = grad_norm([p.grad for p in parameters if p.grad is not None])
        optimizer.step(grad_scale=(1.0 / norm).clamp(max=1.0))
        optimizer.zero_grad()
        return loss.detach().float()

    return step


def full_loss(model, batch: dict[str, Tensor]) -> Tensor:
    return model(**batch).loss


def build(batch: dict[str, Tensor], layers: int) -> dict[str, tuple[nn.Module, Step]]:
    """Each implementation's model, all from one set of weights, and its step."""
    torch.manual_seed(0)
    source = StockBert(StockConfig(num_hidden_layers=layers)).train()
    weights = source.state_dict()

    def stock(dtype: torch.dtype) -> StockBert:
        model = StockBert(source.config).train()
        model.load_state_dict(weights)
        return model.to(dtype)

    def ours(dtype: torch.dtype) -> BertForMaskedLM:
        model = BertForMaskedLM(BertConfig(num_hidden_layers=layers)).train()
        model.load_state_dict(weights, strict=False)  # stock lists the tied decoder twice
        return model.to(dtype)

    swapped = stock(torch.float32)
    bigfast.swap(swapped)
    bf16, fp32 = torch.bfloat16, torch.float32
    models = {
        "stock autocast": (stock(fp32), stock_step, full_loss, True),
        "stock autocast, gathered": (stock(fp32), stock_step, gathered_loss, True),
        "stock pure bf16, gathered": (stock(bf16), stock_step, gathered_loss, False),
        "bigfast bf16-autocast": (ours(fp32), our_step, full_loss, True),
        "bigfast bf16-master": (ours(bf16), our_step, full_loss, False),
        "bigfast swap, autocast": (swapped, our_step, full_loss, True),
    }
    return {n: (m, make(m, batch, loss, cast)) for n, (m, make, loss, cast) in models.items()}


def losses(models: dict[str, tuple[nn.Module, Step]], batch, gathered: str) -> dict[str, float]:
    """The first loss of each with dropout off: they must agree before anything is timed."""
    result = {}
    for name, (model, _) in models.items():
        model.eval()
        loss_of = gathered_loss if name.startswith("stock") and "gathered" in name else full_loss
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled="autocast" in name):
            result[name] = float(loss_of(model, batch))
        model.train()
    first = next(iter(result.values()))
    for name, loss in result.items():
        if abs(loss - first) > 2e-2:  # bf16 losses of about 10.4 differ by thousandths
            raise RuntimeError(f"{name}: loss {loss:.4f}, stock has {first:.4f}; not timed")
    return result


def flops(batch: int, length: int, layers: int, labelled: int) -> float:
    n, inner, vocab = 768, 3072, 30522
    tokens = batch * length
    encoder = 6 * tokens * layers * (4 * n * n + 2 * n * inner) + 12 * layers * length * tokens * n
    return encoder + 6 * labelled * (n * n + n * vocab)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the result into this file")
    args = parser.parse_args()

    keep_freed_memory()
    torch.manual_seed(0)
    batch = make_batch(args.batch, args.length, vocab=30522)
    models = build(batch, args.layers)
    first = losses(models, batch, "gathered")
    times = interleave({n: step for n, (_, step) in models.items()}, 0.0, args.rounds)

    labelled = int((batch["labels"] != -100).sum())
    work = flops(args.batch, args.length, args.layers, labelled)
    described = machine.describe()
    peak = described["bf16_product_GFLOP_s"] * 1e9
    table = Table(
        "step", "ms", "tokens/s", "MFU of measured peak", "loss", "ours: autocast / master"
    )
    rows = []
    for name, t in times.items():
        faster = [ratio(t, times[f"bigfast {ours}"]) for ours in ("bf16-autocast", "bf16-master")]
        rows.append(
            {
                "step": name,
                "ms": round(t.median, 1),
                "p20_ms": round(t.p20, 1),
                "p80_ms": round(t.p80, 1),
                "tokens_per_s": round(args.batch * args.length / t.median * 1e3),
                "mfu_measured": round(work / t.median * 1e3 / peak, 3),
                "loss": round(first[name], 4),
                "autocast_is_faster": [round(x, 3) for x in faster[0]],
                "master_is_faster": [round(x, 3) for x in faster[1]],
            }
        )
        row = rows[-1]
        table.add_row(
            name, f"{row['ms']:.0f} ({row['p20_ms']:.0f}-{row['p80_ms']:.0f})",
            f"{row['tokens_per_s']}", f"{row['mfu_measured']:.1%}", f"{row['loss']:.4f}",
            f"{faster[0][0]:.2f}x / {faster[1][0]:.2f}x",
        )  # fmt: skip
    Console().print(table, ", ".join(f"{k} {v}" for k, v in described.items()))
    if args.json is not None:
        shape = {k: getattr(args, k) for k in ("batch", "length", "layers", "rounds")}
        result = {"machine": described, "shape": shape, "gflop": round(work / 1e9, 1), "rows": rows}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
