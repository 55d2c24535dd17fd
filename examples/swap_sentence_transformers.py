"""Sentence embeddings, swapped: the same vectors, without work for padding.

python examples/swap_sentence_transformers.py --model all-MiniLM-L6-v2 --texts reviews.txt
"""

import argparse
import time
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

import bigfast
from bigfast.hf.examples import sentences


def main(arguments: list[str] | None = None) -> torch.Tensor:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="a folder or a hub id")
    parser.add_argument("--texts", help="a file of one text a line; default: our own")
    parser.add_argument("--batch_size", type=int, default=32)
    chosen = parser.parse_args(arguments)

    model = SentenceTransformer(chosen.model)
    texts = Path(chosen.texts).read_text().splitlines() if chosen.texts else sentences()

    def encode() -> torch.Tensor:
        began = time.perf_counter()
        found = model.encode(texts, batch_size=chosen.batch_size, convert_to_tensor=True)
        print(f"{len(texts)} texts in {time.perf_counter() - began:.2f} s")
        return found

    stock = encode()
    print(bigfast.swap(model))
    swapped = encode()
    print(f"largest difference: {float((swapped - stock).abs().max()):.1e}")
    return swapped


if __name__ == "__main__":
    main()
