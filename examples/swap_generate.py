"""Text from a swapped causal model: `generate` with caches, batches and beams as before.

python examples/swap_generate.py --model gpt2 --prompt "Once upon a time"
"""

import argparse

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import bigfast


def main(arguments: list[str] | None = None) -> list[str]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="gpt2", help="a folder or a hub id")
    parser.add_argument("--prompt", action="append", help="may be given more than once")
    parser.add_argument("--max_new_tokens", type=int, default=40)
    parser.add_argument("--num_beams", type=int, default=1)
    chosen = parser.parse_args(arguments)

    tokenizer = AutoTokenizer.from_pretrained(chosen.model, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(chosen.model).eval()
    print(bigfast.swap(model))

    prompts = chosen.prompt or ["Once upon a time", "The sea was calm, and"]
    batch = tokenizer(prompts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(
            **batch,
            max_new_tokens=chosen.max_new_tokens,
            num_beams=chosen.num_beams,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    for text in texts:
        print(f"---\n{text}")
    return texts


if __name__ == "__main__":
    main()
