"""python -m bigfast.benchmarks.figures: README's figure and tables, from the committed results."""

import json
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bigfast.cli import info

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "cpu"
_OURS, _STOCK = "#1b7f5c", "#9aa5b1"


def draw_steps(result: dict, path: Path) -> None:
    """Bars of milliseconds with the 20th to 80th percentile, slowest first."""
    rows = sorted(result["rows"], key=lambda row: row["ms"])
    figure, axes = plt.subplots(figsize=(8, 3.2), constrained_layout=True)
    for i, row in enumerate(rows):
        ours = row["step"].startswith("bigfast")
        spread = [[row["ms"] - row["p20_ms"]], [row["p80_ms"] - row["ms"]]]
        axes.barh(i, row["ms"], xerr=spread, color=_OURS if ours else _STOCK, capsize=3)
        axes.text(row["p80_ms"] * 1.01 + 20, i, f"{row['ms']:.0f} ms", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [row["step"] for row in rows])
    axes.set_xlim(0, max(row["p80_ms"] for row in rows) * 1.15)
    axes.set_xlabel("milliseconds per step, median of interleaved rounds; shorter is better")
    shape, machine = result["shape"], result["machine"]
    axes.set_title(
        f"BERT-base MLM training step, {shape['batch']} x {shape['length']}, dropout 0.1, "
        f"{machine['threads']} cores of {machine['cpu']}",
        fontsize=10,
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def step_table(result: dict) -> str:
    lines = ["| step | ms (p20-p80) | tokens/s | % of measured bf16 peak |", "|---|---|---|---|"]
    for row in result["rows"]:
        lines.append(
            f"| {row['step']} | {row['ms']:.0f} ({row['p20_ms']:.0f}-{row['p80_ms']:.0f}) | "
            f"{row['tokens_per_s']} | {row['mfu_measured']:.0%} |"
        )
    return "\n".join(lines)


def op_table(result: dict) -> str:
    """Times faster than torch eager, forward and forward + backward, per op, shape and dtype."""
    cells: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for row in result["rows"]:
        if "ours_is_faster" in row:
            name = row["implementation"].removeprefix("torch").strip(", ")
            shape = row["shape"] + (f" (rival: {name})" if name else "")
            cell = cells.setdefault((row["op"], shape), {})
            cell[row["dtype"], row["direction"]] = f"{row['ours_is_faster']:.2f}x"
    directions = [(d, k) for d in ("bfloat16", "float32") for k in ("forward", "both")]
    lines = [
        "| op | shape | bf16 forward | bf16 both | fp32 forward | fp32 both |",
        "|---|---|---|---|---|---|",
    ]
    for (op, shape), cell in cells.items():
        values = [cell.get(key) or cell.get((key[0], "step"), "") for key in directions]
        lines.append(f"| {op} | {shape} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def fill(text: str, name: str, content: str) -> str:
    """`text` with what stands between the markers of `name` replaced."""
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"README.md lacks the markers {begin} and {end}")
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL)


def main() -> None:
    steps = json.loads((RESULTS / "bert_mlm_step.json").read_text())
    draw_steps(steps, ROOT / "docs" / "bert_mlm_step.png")
    readme = ROOT / "README.md"
    text = fill(readme.read_text(), "steps", step_table(steps))
    text = fill(text, "ops", info.markdown(*info.table()))
    if (RESULTS / "ops.json").exists():
        ops = json.loads((RESULTS / "ops.json").read_text())
        (ROOT / "docs" / "ops.md").write_text(
            "# Every op against torch eager\n\n"
            "How many times faster, medians of interleaved rounds (p20 to p80 in the JSON). "
            "Below 1.00x we lose.\nWritten by `make bench` from `benchmarks/results/cpu/ops.json`: "
            + ", ".join(f"{k} {v}" for k, v in ops["machine"].items())
            + ".\n\n"
            + op_table(ops)
            + "\n"
        )
    readme.write_text(text)


if __name__ == "__main__":
    main()
