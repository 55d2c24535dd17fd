"""python -m bigfast.benchmarks.figures: README's figures and tables, from the committed results."""

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bigfast.cli import info
from bigfast.hf.swap import FAMILIES, FUSIONS

from . import page, plots
from .machine import sentence
from .report import number
from .rows import Row, is_ours, load
from .swaps import SWAP_OF, comparisons

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "cpu"
DOCS = ROOT / "docs"


def step_table(result: dict[str, Any]) -> str:
    """Every workload of a model: time, share of peak, and how many times faster ours is."""
    lines = []
    group = None
    for row in result["rows"]:
        if group != (group := (row["direction"], row["shape"])):
            lines += [
                "",
                f"{row['op']}, {': '.join(group)}",
                "",
                "| implementation | ms (p20-p80) | tokens/s | of peak | MB | ours is faster |",
                "|---|---|---|---|---|---|",
            ]
        if row["ms"] is None:
            lines.append(f"| {row['implementation']} | {row['note']} | | | | |")
            continue
        lines.append(
            f"| {row['implementation']} | {number(row['ms'])} ({number(row['p20_ms'])}-"
            f"{number(row['p80_ms'])}) | {row['tokens_per_s']} | "
            f"{_share(row)} | {number(row['memory_mb']) or 'n/a'} | {_ratio(row)} |"
        )
    return "\n".join(lines[1:])


def _share(row: Row) -> str:
    return "" if row["of_peak"] is None else f"{row['of_peak']:.0%}"


def _ratio(row: Row) -> str:
    return "" if row["ratio"] is None else "{:.2f}x ({:.2f}-{:.2f})".format(*row["ratio"])


def swap_table(results: Sequence[dict[str, Any]]) -> str:
    """Per workload: stock as most write it, its best setting, swapped; ms, and MB beyond weights
    and optimizer states."""
    lines = [
        "| workload | stock, usual | stock, best setting | swapped | faster than usual | than best "
        "| memory of usual |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, usual, best, ours in comparisons(results):
        usually, at_best = (f"{row['ms'] / ours['ms']:.2f}x" for row in (usual, best))
        bold = "**" if best["ms"] < ours["ms"] else ""
        lines.append(
            f"| {label} | {_setting(usual)} | {_setting(best)} | {_setting(ours)} | "
            f"{usually} | {bold}{at_best}{bold} | {_memory(ours, usual)} |"
        )
    return "\n".join(lines)


def _setting(row: Row) -> str:
    name = re.sub("^(stock|bigfast swap),? ?", "", row["implementation"])
    return f"{number(row['ms'])} ms" + (f" ({name})" if name else "")


def _memory(ours: Row, usual: Row) -> str:
    if not ours["memory_mb"] or not usual["memory_mb"]:
        return ""
    return f"{ours['memory_mb'] / usual['memory_mb']:.0%}"


def family_table() -> str:
    """The families that `swap` knows, and what it swaps in each."""
    lines = [f"| family | {' | '.join(FUSIONS)} |", "|---" * (1 + len(FUSIONS)) + "|"]
    for module in FAMILIES.values():
        rules = importlib.import_module(module).family.rules.values()
        swapped = {fusion for fusion, replacement, _ in rules if replacement is not None}
        cells = ["yes" if fusion in swapped else "-" for fusion in FUSIONS]
        lines.append(f"| {module.rpartition('.')[2]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def op_table(result: dict[str, Any]) -> str:
    """Times as fast as the fastest rival, per case; below 1.00x we lose."""
    directions = ("forward", "backward", "both")
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in result["rows"]:
        if not is_ours(row["implementation"]):
            continue
        cell = cells.setdefault((row["op"], row["shape"], plots.SHORT[row["dtype"]]), {})
        key = row["direction"] if row["direction"] in directions else "both"
        if row["ms"] is None:
            cell[key] = row["note"]
        elif row["ratio"]:
            share = f", {_share(row)}" if row["of_peak"] else ""
            bold = "**" if row["ratio"][0] < 1 else ""
            cell[key] = f"{bold}{row['ratio'][0]:.2f}x{bold} {row['against']}{share}"
    lines = ["| op | shape | dtype | forward | backward | both |", "|---|---|---|---|---|---|"]
    for names, cell in cells.items():
        values = [cell.get(direction, "") for direction in directions]
        lines.append("| " + " | ".join([*names, *values]) + " |")
    return "\n".join(lines)


def fill(text: str, name: str, content: str) -> str:
    """`text` with what stands between the markers of `name` replaced."""
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"README.md lacks the markers {begin} and {end}")
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL)


def _write_ops(result: dict[str, Any]) -> None:
    (DOCS / "ops.png").write_bytes(plots.speedups(result, "bfloat16", brief=True))
    (DOCS / "ops.md").write_text(
        "# Every op against its fastest rival\n\n"
        "How many times faster, which rival, and the share of the measured copy bandwidth or "
        "matrix product (above 100 % the data was in cache); medians of rounds taken in turn, "
        "intervals in the JSON. Bold: we lose.\nWritten by `make bench` from "
        f"`benchmarks/results/cpu/ops.json`: {sentence(result['machine'])}.\n\n"
        "![Ops in bf16](bench/speedup_bf16.png)\n\n![Roofline](bench/roofline.png)\n\n"
        f"{op_table(result)}\n"
    )


def _write_models(results: Sequence[dict[str, Any]]) -> None:
    tables = "\n\n".join(f"{step_table(r)}\n\n{sentence(r['machine'])}." for r in results)
    (DOCS / "models.md").write_text(
        "# Whole models: training steps, inference, decoding\n\n"
        "Each implementation takes its turn in one process, every rival in its best setting that "
        "needs no code of ours; % of peak counts real tokens alone; MB beyond weights and "
        "optimizer states. Written by `make bench` from `benchmarks/results/cpu/`.\n\n"
        "![Where the time of the step goes](bench/bert-base_breakdown.png)\n\n"
        f"{tables}\n"
    )


def main() -> None:
    results = {path.stem: load(path) for path in sorted(RESULTS.glob("*.json"))}
    page.write(list(results.values()), DOCS / "bench")
    models = [result for result in results.values() if result["kind"] == "model"]
    swaps = [result for result in models if result["rows"][0]["op"].startswith(SWAP_OF)]
    (DOCS / "swap.png").write_bytes(plots.swaps(swaps))
    _write_models(models)
    _write_ops(results["ops"])
    readme = ROOT / "README.md"
    text = readme.read_text()
    for name, content in {
        "swaps": swap_table(swaps),
        "families": family_table(),
        "machine": sentence(swaps[0]["machine"]),
        "ops": info.markdown(*info.table()),
    }.items():
        text = fill(text, name, content)
    readme.write_text(text)


if __name__ == "__main__":
    main()
