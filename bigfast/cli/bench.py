"""`bigfast bench`: how fast this machine runs the ops and models, beside every rival."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bigfast.cli.common import device as device_named
from bigfast.cli.common import model_folder, model_values
from bigfast.train.extras import require

EXAMPLE = """\
example:
  bigfast bench ops layer_norm attention --quick
  bigfast bench ops --json ops.json --plot pictures
  bigfast bench model bert-base --json bert.json
  bigfast bench swap minilm --quick
  bigfast bench compare before.json after.json"""
OPS_EXAMPLE = """\
example:
  bigfast bench ops                        every op; about ten minutes on two cores
  bigfast bench ops attention --quick      seconds
  bigfast bench ops --json ops.json --plot pictures"""
MODEL_EXAMPLE = """\
example:
  bigfast bench model bert-base
  bigfast bench model gpt2 --json gpt2.json --plot pictures
  bigfast bench model runs/bert --quick"""
SWAP_EXAMPLE = """\
example:
  bigfast bench swap minilm --json swap-minilm.json
  BIGFAST_CPU_ISA=avx2 ATEN_CPU_CAPABILITY=avx2 bigfast bench swap bert-base"""
COMPARE_EXAMPLE = """\
example:
  bigfast bench ops layer_norm --json before.json
  ...  # change something
  bigfast bench ops layer_norm --json after.json
  bigfast bench compare before.json after.json"""


def build() -> argparse.ArgumentParser:
    from bigfast.benchmarks import run as ops
    from bigfast.benchmarks.shapes import OURS, SWAPPED

    parser = _parser(
        None,
        "bench",
        "Time BigFast beside its rivals, in turns in one process, each in its best setting: torch "
        "eager and compiled, its fused optimizers and SDPA backends, transformers, and Liger and "
        "flash-attn where installed. Results are checked before anything is timed.",
        EXAMPLE,
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="ops|model|swap|compare"
    )
    one = _parser(commands, "ops", "Every op, forward and backward, by itself.", OPS_EXAMPLE)
    one.add_argument("ops", nargs="*", metavar="NAME", help=f"of {', '.join(ops.names())}")
    _add_measuring(one, "the first shape of each op, fewer rounds, nothing compiled")
    one = _parser(
        commands, "model", "Training steps and inference of a whole model, with the share of each "
        "op. Its weights are random.", MODEL_EXAMPLE,
    )  # fmt: skip
    one.add_argument(
        "model", metavar="NAME|DIR",
        help=f"{', '.join(OURS)}, or a Hugging Face folder of a BERT or GPT-2, whose config.json "
        "is read",
    )  # fmt: skip
    _add_measuring(one, "one training step, fewer rounds, nothing compiled")
    one = _parser(
        commands, "swap", "A model of transformers against itself swapped: fine-tuning with "
        "padding, masked and causal LM, one sentence, SentenceTransformer.encode.", SWAP_EXAMPLE,
    )  # fmt: skip
    one.add_argument("model", metavar="NAME", help=", ".join(SWAPPED))
    _add_measuring(one, "fewer rounds")
    one = _parser(
        commands, "compare", "The times of two results, row by row: green where B is faster and "
        "red where it is slower by more than the intervals.", COMPARE_EXAMPLE,
    )  # fmt: skip
    one.add_argument("a", type=Path, metavar="A.json")
    one.add_argument("b", type=Path, metavar="B.json")
    return parser


def _parser(commands: Any, name: str, description: str, example: str) -> argparse.ArgumentParser:
    options: dict[str, Any] = {
        "description": textwrap.fill(description, 80),
        "epilog": example,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }
    if commands is None:
        return argparse.ArgumentParser(prog=f"bigfast {name}", **options)
    return commands.add_parser(name, help=description.split(".")[0], **options)


def _add_measuring(parser: argparse.ArgumentParser, quick: str) -> None:
    add = parser.add_argument
    add("--quick", action="store_true", help=f"seconds instead of minutes: {quick}")
    add("--json", nargs="?", const="-", metavar="FILE.json", help="write every row; default stdout")
    add("--plot", type=Path, metavar="DIR", help="write pictures and bench.html into this folder")
    add("--device", default="auto", help="cpu, cuda ...; default: a GPU if there is one")


def run(arguments: Sequence[str]) -> int:
    require("rich", purpose="bench", extra="bench")
    from rich.console import Console

    chosen = build().parse_args(arguments)
    if chosen.command == "compare":
        from bigfast.benchmarks import report, rows

        a, b = rows.load(chosen.a), rows.load(chosen.b)
        report.compare(a, b, (chosen.a, chosen.b), Console())
        return 0
    _check_outputs(chosen)
    place = device_named(chosen.device)
    result = _measure(chosen, place, Console(stderr=True))
    # With the JSON on stdout, everything for people goes to stderr.
    console = Console(stderr=chosen.json == "-")
    return _deliver(chosen, result, console)


def _check_outputs(chosen: argparse.Namespace) -> None:
    """ValueError, before minutes of work, for outputs that cannot be written."""
    if chosen.json not in (None, "-") and not chosen.json.endswith(".json"):
        raise ValueError(f"--json: {chosen.json!r} does not end in .json (names go before --json)")
    if chosen.plot is not None:
        require("matplotlib", purpose="--plot", extra="bench")
        if chosen.plot.exists() and not chosen.plot.is_dir():
            raise ValueError(f"--plot: {str(chosen.plot)!r} is a file; name a folder")


def _measure(chosen: argparse.Namespace, place: torch.device, progress: Any) -> dict[str, Any]:
    from bigfast.benchmarks import report

    if chosen.command == "ops":
        from bigfast.benchmarks import run as ops

        wanted = ops.check_names(chosen.ops)
        with report.progress(progress) as tell:
            return ops.measure(wanted, place, chosen.quick, tell)
    require("transformers", purpose=f"bench {chosen.command}", extra="hf")
    from bigfast.benchmarks import models

    if chosen.command == "swap":
        from bigfast.benchmarks.models import swap
        from bigfast.benchmarks.swaps import SWAP_OF

        found = swap.workloads(chosen.model, place)
        with report.progress(progress) as tell:
            return models.measure_all(SWAP_OF + chosen.model, found, place, chosen.quick, tell)

    name, config = chosen.model, None
    if Path(name).is_dir():
        config = models.read(model_values(model_folder(name)), name)
        name = Path(name).resolve().name
    with report.progress(progress) as tell:
        return models.measure(name, config or models.find(name), place, chosen.quick, tell)


def _deliver(chosen: argparse.Namespace, result: dict[str, Any], console: Any) -> int:
    """Show, write, draw. Exit code 1 where something of ours computes something else."""
    from bigfast.benchmarks import report, rows

    report.show(result, console)
    if chosen.json == "-":
        json.dump(result, sys.stdout, indent=1)
        print()
    elif chosen.json is not None:
        rows.save(result, Path(chosen.json))
        console.print(f"rows: {chosen.json}", highlight=False, soft_wrap=True)
    if chosen.plot is not None:
        from bigfast.benchmarks import page

        console.print(f"pictures: {page.write([result], chosen.plot)}", highlight=False)
    wrong = [r for r in result["rows"] if rows.is_ours(r["implementation"]) and r["ms"] is None]
    return 1 if wrong else 0
