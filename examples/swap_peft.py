"""LoRA on a swapped encoder: adapters before or after the swap, it makes no difference.

    python examples/swap_peft.py --model bert-base-uncased

The products of layers with adapters are called as PEFT wants them; everything around them is fused.
"""

import argparse

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import bigfast

TEXTS = ["a film to remember", "dull , slow and far too long", "warm and funny", "a waste of time"]
LABELS = torch.tensor([1, 0, 1, 0])


def main(arguments: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="bert-base-uncased", help="a folder or a hub id")
    parser.add_argument("--steps", type=int, default=10)
    chosen = parser.parse_args(arguments)

    model = AutoModelForSequenceClassification.from_pretrained(chosen.model, num_labels=2)
    model = get_peft_model(
        model, LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"])
    )
    print(bigfast.swap(model))
    model.print_trainable_parameters()

    batch = AutoTokenizer.from_pretrained(chosen.model)(TEXTS, padding=True, return_tensors="pt")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    losses = []
    for step in range(chosen.steps):
        loss = model.train()(**batch, labels=LABELS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        print(f"step {step + 1}: loss {losses[-1]:.4f}")

    merged = bigfast.restore(model).merge_and_unload()  # the stock model, with the adapters in it
    print(f"merged: {type(merged).__name__}")
    return losses


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
