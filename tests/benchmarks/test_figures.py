"""The tables and pictures that README and docs are filled with, and the rivals that have a file."""

import pytest
import torch
from bigfast.benchmarks import figures, plots, rivals
from bigfast.benchmarks.swaps import comparisons


def row(implementation, ms, shape="fine-tuning, 8 x 16, dropout 0.1", dtype="bfloat16"):
    return {
        "op": "swap of tiny", "shape": shape, "dtype": dtype, "direction": "step",
        "implementation": implementation, "ms": ms, "p20_ms": ms and 0.9 * ms,
        "p80_ms": ms and 1.1 * ms, "memory_mb": ms,
    }  # fmt: skip


RESULT = {
    "machine": {"threads": 2, "cpu": "a CPU"},
    "rows": [
        row("stock autocast, random", 8.0), row("stock pure bf16, grouped by length", 3.0),
        row("bigfast swap, autocast", 2.5), row("bigfast swap, pure bf16", 2.0),
        row("stock", 1.0, "1 x 16", "float32"), row("bigfast swap", 2.0, "1 x 16", "float32"),
        row("stock", 1.0, "2 x 16"), row("bigfast swap", None, "2 x 16"),
    ],
}  # fmt: skip


def test_a_swap_is_compared_with_the_usual_and_with_the_best():
    first, second = comparisons([RESULT])
    assert first.label == "tiny, fine-tuning, 8 x 16"
    assert [r["ms"] for r in first[1:]] == [8.0, 3.0, 2.0]
    assert second.label == "tiny, 1 x 16, fp32" and second.usual is second.best


def test_the_table_shows_what_was_lost():
    *_, won, lost = figures.swap_table([RESULT]).splitlines()
    assert "| 2.00 ms (pure bf16) | 4.00x | 1.50x | 25% |" in won
    assert lost.endswith("| 0.50x | **0.50x** | 200% |")
    assert plots.swaps([RESULT]).startswith(b"\x89PNG")


def test_every_family_has_a_line():
    lines = figures.family_table().splitlines()
    bert = next(line for line in lines if line.startswith("| bert |"))
    assert bert.count("yes") == 7
    mpnet = next(line for line in lines if line.startswith("| mpnet |"))
    assert mpnet.split(" | ")[1] == "-"  # attention with a relative position bias stays stock


def test_onnx_runtime_computes_the_same():
    pytest.importorskip("onnxruntime")
    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.GELU()).eval()
    x = torch.randn(3, 8)
    call = rivals.onnx_runtime(model, x)
    torch.testing.assert_close(call(2 * x), model(2 * x), rtol=1e-4, atol=1e-5)
