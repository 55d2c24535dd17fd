"""`bigfast verify`: does a swapped Hugging Face model compute what the stock one does?"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bigfast.cli.run import device, model_folder, model_values, say

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "bf16-autocast": torch.float32}
EXAMPLE = """\
example:
  bigfast verify path/to/bert
  bigfast verify runs/bert --dtype bf16-autocast --steps 5"""


def build() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bigfast verify",
        description="Load a Hugging Face model, swap a copy of it, and set its outputs, gradients "
        "and the losses of some training steps (dropout off) against fp64 and the tolerance "
        "policy; time a step of both. Exit code 1 where the policy does not hold.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("model", metavar="DIR", help="a folder that transformers reads, or a run or checkpoint")
    add("--dtype", choices=[*DTYPES], default="fp32", help="default %(default)s")
    add("--steps", type=int, default=20, metavar="N", help="training steps; default %(default)s")
    add("--device", default="auto", help="cpu, cuda ...; default: a GPU if there is one")
    return parser


def run(arguments: Sequence[str]) -> int:
    chosen = build().parse_args(arguments)
    folder, place = model_folder(chosen.model), device(chosen.device)
    model = _stock(folder).to(place, DTYPES[chosen.dtype])
    from bigfast.hf import verify

    say(f"comparing {type(model).__name__} of {folder} with its swapped self ...")
    autocast: Any = contextlib.nullcontext()
    if chosen.dtype == "bf16-autocast":
        autocast = torch.autocast(place.type, torch.bfloat16)
    with autocast:
        report = verify(model, steps=chosen.steps)
    print(report)
    print(report.swapped)
    return 0 if report.ok else 1


def _stock(folder: Path) -> torch.nn.Module:
    """The model of the folder, of the class that its config.json names."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ImportError("verify needs transformers: pip install 'bigfast[hf]'") from error
    name = (model_values(folder).get("architectures") or ["AutoModel"])[0]
    cls = getattr(transformers, name, None)
    if cls is None:
        raise ValueError(f"{folder}: transformers has no class {name!r}")
    return cls.from_pretrained(folder)
