"""What the stages hand to the report; `results.json` holds all of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import mean
from typing import Any

MARGIN = 0.25  # by which the pretrained network is to beat the majority class, in macro F1

MAJORITY = "majority class"
BAG = "bag of words, logistic regression"
FRESH = "the same network, not pretrained"
PRETRAINED = "pretrained BERT"


@dataclass
class Training:
    """One run of the trainer."""

    parameters: int
    steps: int
    tokens: int
    seconds: float
    tokens_per_s: float
    mfu: float
    held_out: dict[str, float]  # metrics of the last evaluation
    log: list[dict[str, Any]] = field(repr=False)  # rows of log.jsonl that have a step


@dataclass
class Scores:
    """Of a classifier on the test examples; precision, recall and f1 are macro means."""

    accuracy: float
    precision: float
    recall: float
    f1: float


@dataclass
class Classification:
    """Test scores by method, one per seed (one alone where nothing is drawn)."""

    question: str
    train_examples: int
    test_examples: int
    steps: int  # of each fine-tuning
    epochs: float
    scores: dict[str, list[Scores]]

    def mean_f1(self, method: str) -> float:
        return mean(score.f1 for score in self.scores[method])

    def spread(self, method: str) -> float:
        """The best seed's macro F1 minus the worst one's."""
        f1 = [score.f1 for score in self.scores[method]]
        return max(f1) - min(f1)


@dataclass
class Compression:
    """Bits per byte of the same held-out bytes."""

    held_out_bytes: int
    train_bytes: int
    gpt: float
    ngram: float
    xz: float


@dataclass
class Sample:
    prompt: str
    continuation: str


@dataclass
class Times:
    """Milliseconds of a training step: the median and the middle 60 %."""

    median: float
    p20: float
    p80: float


@dataclass
class Swap:
    """Stock transformers against itself swapped, on the same weights and batches."""

    losses: dict[str, list[float]]  # "stock" and "swapped", step by step; fp32, dropout off
    excess: float  # largest error over the allowed one: outputs, gradients, losses
    rows: int
    tokens: int
    stock: dict[str, Times]  # by precision
    swapped: dict[str, Times]

    @property
    def same(self) -> bool:
        return self.excess <= 1.0


@dataclass
class Results:
    """Everything that the report tells."""

    source: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    bert: Training
    gpt: Training
    classification: Classification
    compression: Compression
    samples: list[Sample]
    swap: Swap
    stages: dict[str, float]  # seconds
    seconds: float
    folders: dict[str, str]

    def goals(self) -> list[tuple[str, bool, str]]:
        """What the run set out to show: (claim, whether it holds, the numbers)."""
        c, b = self.classification, self.compression
        pretrained, fresh, majority = map(c.mean_f1, (PRETRAINED, FRESH, MAJORITY))
        spread = max(c.spread(PRETRAINED), c.spread(FRESH))
        return [
            (
                f"pretrained BERT's macro F1 is {MARGIN} above the majority class's",
                pretrained >= majority + MARGIN,
                f"{pretrained:.3f} and {majority:.3f}",
            ),
            (
                "and above the same network's without pretraining, by more than their spread",
                pretrained - fresh > spread,
                f"{pretrained:.3f} and {fresh:.3f}, spread {spread:.3f}",
            ),
            (
                "the GPT needs fewer bits per byte than a byte 5-gram model",
                b.gpt < b.ngram,
                f"{b.gpt:.3f} and {b.ngram:.3f}",
            ),
            (
                "the swapped model is the stock model, within the tolerance policy",
                self.swap.same,
                f"largest error {self.swap.excess:.2f} of the allowed one",
            ),
        ]
