"""Micro-batches out of shards: pure functions of (seed, position), so resuming needs one number.

Sample g of the endless stream is in micro-batch `g // batch` and in epoch `g // samples per epoch`;
each epoch is another permutation of all samples. Tensors are int64 and on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from bigfast.data.labelled import Example
from bigfast.data.native import helpers
from bigfast.data.reference import num_blocks
from bigfast.data.shards import Shard
from bigfast.data.tokenizer import Tokenizer


class _Batches:
    """What all kinds share: how many samples an epoch has, and where a position is."""

    def __init__(self, samples: int, batch: int, seed: int) -> None:
        if batch < 1:
            raise ValueError(f"batch: expected 1 or more, got {batch}")
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed: expected 0 to 2^64 - 1, got {seed}")
        self.samples = samples
        self.size = batch
        self.seed = seed

    def __len__(self) -> int:
        """Micro-batches per epoch, the last broken one not counted; 1 or more."""
        return max(1, self.samples // self.size)

    def epoch(self, position: int) -> int:
        """The epoch in which micro-batch `position` starts, from 0."""
        return position * self.size // self.samples

    def batch(self, position: int) -> dict[str, Tensor]:
        raise NotImplementedError


class CausalBatches(_Batches):
    """Blocks of `seq` tokens for a causal LM: input_ids and labels, both (batch, seq).

    labels equal input_ids; the model shifts them. Blocks run across documents, which the separator
    divides, and their cuts move from epoch to epoch.
    """

    def __init__(self, shard: Shard, seq: int, batch: int, seed: int = 0) -> None:
        _check_length(shard, "seq", seq, smallest=2, content=seq)
        super().__init__(num_blocks(len(shard), seq), batch, seed)
        self.shard = shard
        self.seq = seq

    def batch(self, position: int) -> dict[str, Tensor]:
        rows = helpers().blocks(self.shard.tokens, self.seq, self.size, position, self.seed)
        ids = torch.from_numpy(rows)
        return {"input_ids": ids, "labels": ids.clone()}


class MlmBatches(_Batches):
    """Rows [CLS] text [SEP] of one segment with BERT's masking; all tensors (batch, seq).

    input_ids, attention_mask (all 1), token_type_ids (all 0) and labels (-100 where not masked).
    Rows are full and run across documents, as RoBERTa's FULL-SENTENCES (Liu et al. 2019, 4.2).
    """

    def __init__(
        self,
        shard: Shard,
        seq: int,
        batch: int,
        seed: int = 0,
        *,
        mask_probability: float = 0.15,
    ) -> None:
        _check_length(shard, "seq", seq, smallest=3, content=seq - 2)
        super().__init__(num_blocks(len(shard), seq - 2), batch, seed)
        self.shard = shard
        self.seq = seq
        self._masking = _Masking(shard, mask_probability, seed)

    def batch(self, position: int) -> dict[str, Tensor]:
        cls, sep = self.shard.special_id("cls"), self.shard.special_id("sep")
        rows = helpers().blocks(
            self.shard.tokens, self.seq - 2, self.size, position, self.seed, cls, sep
        )
        ids, labels = self._masking(rows, position)
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "token_type_ids": torch.zeros_like(ids),
            "labels": labels,
        }


class NspBatches(_Batches):
    """Rows [CLS] A [SEP] B [SEP] with BERT's masking, half of them with a B from another document.

    As `MlmBatches`, padded where short, and next_sentence_label (batch): 0 where B follows A, 1
    where it does not (as transformers has it). A share of `short_probability` is cut to a random
    length. The shard must be written `with_sentences=True`.
    """

    def __init__(
        self,
        shard: Shard,
        seq: int,
        batch: int,
        seed: int = 0,
        *,
        mask_probability: float = 0.15,
        short_probability: float = 0.1,
    ) -> None:
        if seq < 5:
            raise ValueError(f"seq: expected 5 or more, got {seq}")
        if not 0.0 <= short_probability <= 1.0:
            raise ValueError(f"short_probability: expected 0 to 1, got {short_probability}")
        if shard.sentences is None:
            raise ValueError(f"{shard.path}: has no sentences; write it with_sentences=True")
        self._chunks = helpers().chunk_documents(shard.documents, shard.sentences, 1, seq - 3)
        if len(np.unique(self._chunks[:, 3])) < 2:
            raise ValueError(f"{shard.path}: needs two documents of two sentences each, at least")
        super().__init__(len(self._chunks), batch, seed)
        self.shard = shard
        self.seq = seq
        self.short_probability = short_probability
        self._masking = _Masking(shard, mask_probability, seed)

    def batch(self, position: int) -> dict[str, Tensor]:
        spans, is_random = helpers().sentence_pairs(
            self._chunks,
            self.shard.sentences,
            self.seq - 3,
            self.size,
            position,
            self.seed,
            self.short_probability,
        )
        cls, sep, pad = (self.shard.special_id(role) for role in ("cls", "sep", "pad"))
        rows, mask, types = helpers().span_rows(self.shard.tokens, spans, self.seq, cls, sep, pad)
        ids, labels = self._masking(rows, position)
        return {
            "input_ids": ids,
            "attention_mask": torch.from_numpy(mask),
            "token_type_ids": torch.from_numpy(types),
            "labels": labels,
            "next_sentence_label": torch.from_numpy(is_random),
        }


class LabelledBatches(_Batches):
    """Rows of labelled texts or pairs: input_ids, attention_mask, token_type_ids, labels (batch).

    A row is [CLS] text [SEP] or [CLS] text [SEP] pair [SEP], padded to `seq`; of what does not fit
    the longer part gives way first. All examples are pairs or none is.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        tokenizer: Tokenizer,
        seq: int,
        batch: int,
        seed: int = 0,
    ) -> None:
        if not examples:
            raise ValueError("examples: expected one or more, got none")
        pairs = sum(example.pair is not None for example in examples)
        if pairs not in (0, len(examples)):
            raise ValueError(
                f"examples: {pairs} of {len(examples)} are pairs; expected all or none"
            )
        smallest = 5 if pairs else 3
        if seq < smallest:
            raise ValueError(f"seq: expected {smallest} or more, got {seq}")
        super().__init__(len(examples), batch, seed)
        self.seq = seq
        self._special = [tokenizer.id(role) for role in ("cls", "sep", "pad")]
        parts = [part for e in examples for part in (e.text, e.pair)]
        texts = [part for part in parts if part is not None]
        rows = tokenizer.encode_batch(texts)
        ends = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        self._tokens = np.array([id for row in rows for id in row], dtype=np.uint32)
        self._spans = np.stack([ends[:-1], ends[1:]], axis=1).reshape(len(examples), -1)
        self._labels = np.array([example.label for example in examples], dtype=np.int64)

    def batch(self, position: int) -> dict[str, Tensor]:
        return self._rows(helpers().sample_order(self.samples, self.size, position, self.seed))

    def in_order(self) -> Iterator[dict[str, Tensor]]:
        """All examples once, in their own order; the last batch may be smaller. For evaluation."""
        for start in range(0, self.samples, self.size):
            yield self._rows(np.arange(start, min(start + self.size, self.samples)))

    def _rows(self, index: np.ndarray) -> dict[str, Tensor]:
        rows, mask, types = helpers().span_rows(
            self._tokens, self._spans[index], self.seq, *self._special
        )
        return {
            "input_ids": torch.from_numpy(rows),
            "attention_mask": torch.from_numpy(mask),
            "token_type_ids": torch.from_numpy(types),
            "labels": torch.from_numpy(self._labels[index]),
        }


class _Masking:
    """BERT's masking with the special tokens of a shard: (rows, position) -> input_ids, labels."""

    def __init__(self, shard: Shard, probability: float, seed: int) -> None:
        if not 0.0 < probability <= 1.0:
            raise ValueError(f"mask_probability: expected 0 < p <= 1, got {probability}")
        self._special = np.array(shard.header.special_ids, dtype=np.int64)
        self._mask_id = shard.special_id("mask")
        self._vocab_size = shard.header.vocab_size
        self._probability = probability
        self._seed = seed

    def __call__(self, rows: np.ndarray, position: int) -> tuple[Tensor, Tensor]:
        ids, labels = helpers().mask_tokens(
            rows,
            self._special,
            self._mask_id,
            self._vocab_size,
            self._probability,
            position,
            self._seed,
        )
        return torch.from_numpy(ids), torch.from_numpy(labels)


def _check_length(shard: Shard, name: str, value: int, *, smallest: int, content: int) -> None:
    if value < smallest:
        raise ValueError(f"{name}: expected {smallest} or more, got {value}")
    if content > len(shard):
        raise ValueError(f"{name}: {value} is more than the {len(shard)} tokens of {shard.path}")
