"""python -m bigfast.benchmarks.figures: README's figures and tables, from the committed results."""

import re
from pathlib import Path
from typing import Any

from bigfast.cli import info

from . import page, plots
from .machine import sentence
from .report import number
from .rows import Row, is_ours, load

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


def pictures(with_ops: bool) -> str:
    """Those that there are, for README."""
    captions = {"bench/bert-base_breakdown.png": "Where the time of the step goes"}
    if with_ops:
        captions = {"ops.png": "Ops against the fastest rival ([all](docs/ops.md))"} | captions
        captions["bench/roofline.png"] = "Ops under this machine's roof"
    return "\n\n".join(
        f"{caption}:\n\n![{caption.split(' (')[0]}](docs/{name})"
        for name, caption in captions.items()
        if (DOCS / name).exists()
    )


def main() -> None:
    results = {path.stem: load(path) for path in sorted(RESULTS.glob("*.json"))}
    page.write(list(results.values()), DOCS / "bench")
    bert = results["bert-base"]
    first = f"{bert['rows'][0]['direction']}: {bert['rows'][0]['shape']}"
    (DOCS / "bert_base_step.png").write_bytes(plots.steps(bert, only=first))
    models = [result for result in results.values() if result["kind"] == "model"]
    readme = ROOT / "README.md"
    text = fill(readme.read_text(), "steps", "\n\n".join(map(step_table, models)))
    text = fill(text, "machine", sentence(bert["machine"]))
    text = fill(text, "pictures", pictures("ops" in results))
    readme.write_text(fill(text, "ops", info.markdown(*info.table())))
    if "ops" in results:
        (DOCS / "ops.png").write_bytes(plots.speedups(results["ops"], "bfloat16", brief=True))
        (DOCS / "ops.md").write_text(
            "# Every op against its fastest rival\n\n"
            "How many times faster, which rival, and the share of the measured copy bandwidth or "
            "matrix product (above 100 % the data was in cache); medians of rounds taken in turn, "
            "intervals in the JSON. Bold: we lose.\nWritten by `make bench` from "
            f"`benchmarks/results/cpu/ops.json`: {sentence(results['ops']['machine'])}.\n\n"
            "![Ops in bf16](bench/speedup_bf16.png)\n\n![Roofline](bench/roofline.png)\n\n"
            f"{op_table(results['ops'])}\n"
        )


if __name__ == "__main__":
    main()
