"""Fine-tune a classifier with transformers' own Trainer, swapped: one line more than without.

    python examples/swap_hf_trainer.py --model bert-base-uncased --train train.tsv --dev dev.tsv

The files hold `text<TAB>label` with labels 0, 1, ...; --stock leaves the line out, to compare.
"""

import argparse
from pathlib import Path

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

import bigfast


def read(path: str) -> list[tuple[str, int]]:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [(text, int(label)) for text, label in (line.rsplit("\t", 1) for line in lines)]


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="bert-base-uncased", help="a folder or a hub id")
    parser.add_argument("--train", required=True)
    parser.add_argument("--dev", required=True)
    parser.add_argument("--output_dir", default="runs/swap_hf_trainer")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=3e-5)
    parser.add_argument("--bf16", action="store_true", help="bf16 autocast")
    parser.add_argument("--stock", action="store_true", help="without the swap")
    chosen = parser.parse_args(arguments)

    tokenizer = AutoTokenizer.from_pretrained(chosen.model)
    tokens = lambda rows: [
        {**tokenizer(text, truncation=True, max_length=128), "labels": label}
        for text, label in rows
    ]
    train, dev = read(chosen.train), read(chosen.dev)
    model = AutoModelForSequenceClassification.from_pretrained(
        chosen.model, num_labels=1 + max(label for _, label in train)
    )
    if not chosen.stock:
        print(bigfast.swap(model))

    trainer = Trainer(
        model,
        TrainingArguments(
            chosen.output_dir,
            num_train_epochs=chosen.epochs,
            per_device_train_batch_size=chosen.batch_size,
            learning_rate=chosen.learning_rate,
            bf16=chosen.bf16,
            logging_steps=10,
            report_to=[],
        ),
        train_dataset=tokens(train),
        eval_dataset=tokens(dev),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda p: {"accuracy": (p.predictions.argmax(-1) == p.label_ids).mean()},
    )
    trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model()  # as the stock model: nothing in the folder knows of bigfast
    print({name: round(float(value), 4) for name, value in metrics.items()})
    return metrics


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
