"""`bigfast info`: who serves each op on each device, the evidence, and why the others do not."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec

import torch

from bigfast.ops import library, registry
from bigfast.ops.evidence import DTYPES, EVIDENCE, RUNGS, answers
from bigfast.version import __version__

DEVICES = ("cpu", "cuda")
PACKAGES = ("torch", "numpy", "triton", "transformers", "tokenizers", "safetensors", "flash-attn")
SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
EXAMPLE = """\
example:
  bigfast info
  bigfast info --markdown            the table of README.md
  BIGFAST_CPU_ISA=avx2 bigfast info"""


def build() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bigfast info",
        description="Who serves each op on each device, which evidence there is for it, and why "
        "the other implementations do not serve; versions and the state of the native library.",
        epilog=EXAMPLE + "\n\nevidence:\n" + _rungs(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--markdown", action="store_true", help="the table alone, in Markdown")
    return parser


def _rungs() -> str:
    return "\n".join(f"  {name:<13}{what}" for name, what in RUNGS.items())


def run(arguments: Sequence[str]) -> int:
    chosen = build().parse_args(arguments)
    header, rows = table()
    if chosen.markdown:
        print(markdown(header, rows))
        return 0
    for name, value in machine().items():
        print(f"{name:<10}{value}")
    print()
    _show(header, rows)
    print("\nwhy the others do not serve")
    print("\n".join(reasons()))
    return 0


def table() -> tuple[list[str], list[list[str]]]:
    """Header and rows: op, who serves it on each device, and a tick per rung of the evidence."""
    rows = []
    for op in registry.ops():
        ticks = ["yes" if rung in EVIDENCE[op].rungs else "-" for rung in RUNGS]
        rows.append([op, *(served(op, device) for device in DEVICES), *ticks])
    devices = [f"on {device}" for device in DEVICES]
    rungs = [rung.upper() if rung in ("cpu", "gpu") else rung for rung in RUNGS]
    return ["op", *devices, *rungs], rows


def served(op: str, device: str) -> str:
    """`cpp`, or `cpp; fp16 reference` where dtypes differ."""
    by_name: dict[str, list[str]] = {}
    for dtype in DTYPES:
        name = next((a.name for a in answers(op, device, dtype) if a.why_not is None), "reference")
        by_name.setdefault(name, []).append(SHORT[dtype])
    first, *others = by_name
    return "; ".join([first, *(f"{' '.join(by_name[name])} {name}" for name in others)])


def reasons() -> list[str]:
    """One line per op, device and implementation that does not serve, with the dtypes it is about.

    One that could serve but stands behind a faster one is not a refusal, and is named last.
    """
    lines = []
    for op in registry.ops():
        for device in DEVICES:
            refusals: dict[tuple[str, str], list[str]] = {}
            for dtype in DTYPES:
                server = None
                for name, why_not in answers(op, device, dtype):
                    if why_not is not None:
                        refusals.setdefault((name, why_not), []).append(SHORT[dtype])
                    elif server is None:
                        server = name
                    elif name != "reference":
                        refusals.setdefault((name, f"{server} comes first"), []).append(
                            SHORT[dtype]
                        )
            for (name, why_not), dtypes in refusals.items():
                lines.append(f"  {op}, {device}, {' '.join(dtypes)}: {name}: {why_not}")
    missing = [device for device in DEVICES if device != "cpu" and not torch.cuda.is_available()]
    lines += [f"  {device}: this machine has none; not measured on a GPU" for device in missing]
    return lines or ["  no implementation refuses"]


def machine() -> dict[str, str]:
    """Versions, and the state of the native library."""
    versions = [f"bigfast {__version__}", f"python {platform.python_version()}"]
    for package in PACKAGES:
        if find_spec(package.replace("-", "_")) is not None:
            versions.append(f"{package} {metadata.version(package)}")
    if library.NATIVE_MISSING is None:
        native = f"loaded; instruction set {library.cpu_isa()}, of {' '.join(library.cpu_isas())}"
    else:
        native = f"missing: {library.NATIVE_MISSING}"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    forced = os.environ.get("BIGFAST_BACKEND")
    return {
        "versions": ", ".join(versions),
        "native": native,
        "cuda c++": library.cuda_missing() or "loaded",
        "cpu": f"{platform.machine()}, {torch.get_num_threads()} threads of {os.cpu_count()} CPUs",
        "gpu": ", ".join(gpus) or "none",
        **({"forced": f"BIGFAST_BACKEND={forced}"} if forced else {}),
    }


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *([f"`{row[0]}`", *row[1:]] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _show(header: list[str], rows: list[list[str]]) -> None:
    if find_spec("rich") is not None:
        from rich.console import Console
        from rich.table import Table

        drawn = Table(*header, box=None, pad_edge=False)
        for row in rows:
            drawn.add_row(*row)
        console = Console()
        if console.is_terminal:
            console.print(drawn)
            return
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
