"""How the minutes are divided, and how large everything is."""

from __future__ import annotations

from dataclasses import dataclass

SEEDS = 3  # of the fine-tuning, with pretraining and without
# Shares of the whole time; what is left goes to reading, tokenizers, evaluations and baselines,
# which take about as long whatever `minutes` is.
BERT_SHARE = 0.33
FINETUNE_SHARE = 0.27  # of all runs together
GPT_SHARE = 0.25
BYTES_PER_MINUTE = 6_000_000  # of training text: more would not be seen in the time


@dataclass
class QuickstartConfig:
    """What a user may choose.

    Raises ValueError, naming the field and its value, for what makes no sense.
    """

    text: str | None = None  # a folder or file of text instead of Python's own library
    minutes: float = 7.3  # about how long it all takes on two cores; training is scaled to it
    seed: int = 42
    output_dir: str | None = None  # default: runs/quickstart-<date>-<time>

    def __post_init__(self) -> None:
        if not 0.0 < self.minutes < 1e6:
            raise ValueError(f"minutes must be positive, got {self.minutes!r}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be in [0, 2**31), got {self.seed!r}")


@dataclass(frozen=True)
class Plan:
    """Sizes and budgets of one run."""

    minutes: float
    bert_minutes: float
    finetune_minutes: float  # of one run
    gpt_minutes: float
    train_bytes: int  # of text, at most, for tokenizers and pretraining
    held_out_bytes: int  # for the losses on held-out text, and bits per byte
    train_examples: int  # for fine-tuning
    test_examples: int
    vocab_size: int = 8192
    hidden: int = 128  # of the BERT
    layers: int = 4
    heads: int = 4
    row: int = 128  # tokens in a row of the BERT
    eval_steps: int = 300
    finetune_epochs: float = 2.0
    finetune_lr: float = 3e-4
    gpt_hidden: int = 128
    gpt_block: int = 256  # tokens in a row of the GPT
    batch: int = 16  # rows of the BERT in a step
    finetune_batch: int = 16
    gpt_batch: int = 8
    swap_seconds: float = 6.0


def make_plan(minutes: float) -> Plan:
    """Training time grows with `minutes`; so do the texts, up to where more brings nothing."""
    return Plan(
        minutes=minutes,
        bert_minutes=BERT_SHARE * minutes,
        finetune_minutes=FINETUNE_SHARE * minutes / (2 * SEEDS),
        gpt_minutes=GPT_SHARE * minutes,
        train_bytes=max(2_000_000, round(BYTES_PER_MINUTE * minutes)),
        held_out_bytes=round(min(1_000_000, max(100_000, 150_000 * minutes))),
        train_examples=3000,
        test_examples=round(min(1000, max(200, 150 * minutes))),
    )
