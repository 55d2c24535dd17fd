"""`bigfast generate`: a GPT continues text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields

from bigfast.cli.common import device, model_folder, say
from bigfast.data import Tokenizer
from bigfast.models import GPTForCausalLM
from bigfast.tasks import GenerateConfig, continue_text

EXAMPLE = """\
example:
  bigfast generate runs/gpt --prompt "def main(" --max_new_tokens 200 --temperature 0.8 --top_k 50
  bigfast generate runs/gpt --prompt "Once" --no-do_sample
  echo "Once upon a time" | bigfast generate runs/gpt --prompt -"""


def build() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bigfast generate",
        description="Continue a text with a trained GPT; prints the prompt and what follows it.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    default = GenerateConfig()
    add = parser.add_argument
    add("model", metavar="DIR", help="a run (its last checkpoint), a checkpoint, or a model")
    add(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="may be given more than once; - reads stdin; default: start a new text",
    )
    add(
        "--max_new_tokens",
        type=int,
        default=default.max_new_tokens,
        metavar="N",
        help="default %(default)s",
    )
    add(
        "--do_sample",
        action=argparse.BooleanOptionalAction,
        default=default.do_sample,
        help="draw the next token; --no-do_sample takes the likeliest",
    )
    add(
        "--temperature",
        type=float,
        default=default.temperature,
        metavar="T",
        help="divides the logits; default %(default)s",
    )
    add("--top_k", type=int, metavar="K", help="only the K likeliest tokens")
    add("--top_p", type=float, metavar="P", help="only the likeliest that have probability P")
    add("--seed", type=int, default=default.seed, metavar="N", help="default %(default)s")
    add("--num_return_sequences", type=int, default=1, metavar="N", help="texts for each prompt")
    add("--device", default="auto", help="cpu, cuda ...; default: a GPU if there is one")
    return parser


def run(arguments: Sequence[str]) -> int:
    chosen = build().parse_args(arguments)
    if chosen.num_return_sequences < 1:
        raise ValueError(
            f"num_return_sequences must be at least 1, got {chosen.num_return_sequences}"
        )
    config = GenerateConfig(**{f.name: getattr(chosen, f.name) for f in fields(GenerateConfig)})
    folder = model_folder(chosen.model)
    tokenizer = Tokenizer.from_pretrained(folder)
    model = GPTForCausalLM.from_pretrained(folder).to(device(chosen.device))
    prompts = [
        sys.stdin.read() if prompt == "-" else prompt
        for prompt in chosen.prompt or [""]
        for _ in range(chosen.num_return_sequences)
    ]
    if sys.stderr.isatty():
        say(f"generating up to {len(prompts)} x {config.max_new_tokens} tokens ...")
    for number, (prompt, text) in enumerate(
        zip(prompts, continue_text(model, tokenizer, prompts, config))
    ):
        if number:
            print("-" * 40)
        print(prompt + text)
    return 0
