"""`bigfast verify`: does a swapped model compute what the stock one does, and faster?"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from bigfast.cli.common import device, model_folder, model_values, say
from bigfast.train.extras import require
from bigfast.train.memory import keep_freed_memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "bf16-autocast": torch.float32}
DESCRIPTION = """\
Load a model, swap a copy of it, and set its outputs, gradients and the losses of some training
steps (dropout off) against fp64 and the tolerance policy: at most twice stock's own rounding
error. Time and memory of both follow, stock in its best setting, and a picture of it all.

MODEL is a folder that transformers reads, a run or checkpoint of bigfast's, a hub id that is in
the local cache (nothing is downloaded), or a class as module:Class, with random weights."""
EXAMPLE = """\
example:
  bigfast verify path/to/bert
  bigfast verify google-bert/bert-base-uncased --dtype bf16-autocast --data reviews.jsonl
  bigfast verify transformers:BertForMaskedLM --steps 5 --png bert.png

exit code: 0 within the policy, 1 not, 2 wrong usage"""
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")
_LARGE = 50_000_000  # parameters: a minute on two cores is enough for BERT-base with fewer tokens
_SECONDS_BETWEEN_LINES = 5.0


def build() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bigfast verify",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a folder, a hub id in the local cache, or module:Class")
    add(
        "--data", type=Path, metavar="FILE.jsonl",
        help='texts, one {"text": ...} a line; default: sentences that come with bigfast, or '
        "random ids where the model has no tokenizer",
    )  # fmt: skip
    many = f"from {_LARGE / 1e6:.0f} million parameters on"
    add("--batch", type=int, metavar="N", help=f"sequences; default 16, 8 {many}")
    add("--length", type=int, metavar="N", help=f"tokens of one at most; default 64, 16 {many}")
    add("--steps", type=int, default=20, metavar="N", help="training steps; default %(default)s")
    add("--dtype", choices=[*DTYPES], default="fp32", help="default %(default)s")
    add("--device", default="auto", help="cpu, cuda ...; default: a GPU if there is one")
    add(
        "--png", metavar="FILE", help="where the picture goes; default verify-NAME.png here; "
        "none: no picture",
    )  # fmt: skip
    return parser


def run(arguments: Sequence[str]) -> int:
    chosen = build().parse_args(arguments)
    for name in ("batch", "length", "steps"):
        if (value := getattr(chosen, name)) is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    require("transformers", purpose="verify", extra="hf")
    picture = _picture(chosen)
    place = device(chosen.device)
    name, model, folder = load(chosen.model)
    model = model.to(place, DTYPES[chosen.dtype])
    large = sum(p.numel() for p in model.parameters()) > _LARGE
    chosen.batch = chosen.batch or (8 if large else 16)
    chosen.length = chosen.length or (16 if large else 64)
    keep_freed_memory()
    batch = _batch(model, folder, chosen)
    from bigfast.hf import verify

    autocast: Any = contextlib.nullcontext()
    if chosen.dtype == "bf16-autocast":
        autocast = torch.autocast(place.type, torch.bfloat16)
    with autocast, _Progress() as tell:
        report = verify(model, batch, chosen.steps, tell)
    report.model = f"{name}: {report.model}"
    print(report)
    print(report.swapped)
    if picture is not None:
        report.save_picture(picture)
        print(f"picture: {picture}")
    return 0 if report.ok else 1


def _picture(chosen: argparse.Namespace) -> str | None:
    """Where the picture goes; ValueError, before any work, for what is not a PNG."""
    if chosen.png == "none":
        return None
    if chosen.png is not None:
        require("matplotlib", purpose="--png", extra="bench")
        if not chosen.png.endswith(".png"):
            raise ValueError(f"--png: {chosen.png!r} does not end in .png")
        return chosen.png
    if find_spec("matplotlib") is None:
        say("no picture: pip install 'bigfast[bench]'")
        return None
    short = re.sub(r"[^\w.-]+", "-", Path(chosen.model).name).strip("-.") or "model"
    return f"verify-{short}.png"


# The model ----------------------------------------------------------------------------------------


def load(model: str) -> tuple[str, torch.nn.Module, Path | None]:
    """The name, the model and its folder (None: random weights). ValueError for what is none of a
    folder, a hub id in the local cache and module:Class."""
    if Path(model).is_dir():
        folder = model_folder(model)
        return Path(model).resolve().name, _from_folder(folder), folder
    if re.fullmatch(r"[\w.]+:\w+", model):
        return model, _from_class(*model.split(":")), None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"{model!r} is no folder, no module:Class and not in the local Hugging Face cache; "
            f"verify downloads nothing, `hf download {model}` does"
        ) from error
    return model, _from_folder(folder), folder


def _from_folder(folder: Path) -> torch.nn.Module:
    """The model of the folder, of the class that its config.json names."""
    import transformers

    name = (model_values(folder).get("architectures") or ["AutoModel"])[0]
    cls = getattr(transformers, name, None)
    if cls is None:
        raise ValueError(f"{folder}: transformers has no class {name!r}")
    return cls.from_pretrained(folder)


def _from_class(module: str, name: str) -> torch.nn.Module:
    """An instance of the class, from its default config: random weights, the same each time."""
    if "" not in sys.path:  # as for `python -m`: a module of the user's own, in this folder
        sys.path.insert(0, "")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{module}:{name}: {error}") from error
    config = getattr(cls, "config_class", None)
    if config is None:
        raise ValueError(
            f"{module}:{name} is no transformers model, so that its inputs are not known here: use "
            "bigfast.verify(model, batch) in Python"
        )
    torch.manual_seed(0)
    return cls(config())


# The batch ----------------------------------------------------------------------------------------


def _batch(
    model: torch.nn.Module, folder: Path | None, chosen: argparse.Namespace
) -> dict[str, torch.Tensor]:
    """Texts through the model's own tokenizer, or random inputs; with labels for its head."""
    from bigfast.hf.examples import (
        example_batch,
        input_name,
        random_inputs,
        sentences,
        text_inputs,
    )

    reads = input_name(model)
    tokenizes = folder is not None and any((folder / name).is_file() for name in _TOKENIZERS)
    if reads != "input_ids" or not tokenizes:
        if chosen.data is not None:
            raise ValueError(f"--data needs a tokenizer, and {chosen.model} has none for {reads}")
        say("no tokenizer: random ids" if reads == "input_ids" else f"random {reads}")
        return example_batch(model, random_inputs(model, chosen.batch, chosen.length))
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    texts = sentences() if chosen.data is None else _texts(chosen.data, chosen.batch)
    texts = texts[: chosen.batch]
    return example_batch(model, text_inputs(model, tokenizer, texts, chosen.length))


def _texts(path: Path, most: int) -> list[str]:
    from bigfast.data.corpus import read_json_rows

    if not path.is_file():
        raise ValueError(f"--data: {path} is no file")
    texts = []
    for line, row in islice(read_json_rows(path), most):
        if not isinstance(row.get("text"), str):
            raise ValueError(f"{path}:{line}: no text under 'text'; fields: {sorted(row)}")
        texts.append(row["text"])
    if not texts:
        raise ValueError(f"--data: {path} holds no text")
    return texts


class _Progress:
    """`with _Progress() as tell`: one live line on a terminal, else a line each five seconds."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.began = self.last = time.monotonic()

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        line = f"{done}/{total}  {now - self.began:.0f} s  {what}"
        if self.live:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif now - self.last >= _SECONDS_BETWEEN_LINES or done == 0:
            self.last = now
            say(line)

    def __exit__(self, *_: object) -> None:
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
