"""What the GPT's bits per byte are held against: `xz -9` and a byte 5-gram model.

The n-gram model interpolates from the uniform distribution up to contexts of n - 1 bytes as Witten
and Bell do ("The zero-frequency problem", IEEE Trans. Inf. Theory 37, 1991; their method C). For a
context h that training has seen N times, followed by T different bytes,

    P(c | h) = (count(h c) + T P(c | h without its first byte)) / (N + T),

and an unseen h leaves the shorter context's P. For every h these sum to 1 over the 256 bytes.
"""

from __future__ import annotations

import lzma
from typing import NamedTuple

import numpy as np


def xz_bits_per_byte(text: bytes) -> float:
    """Bits of the file that `xz -9` makes of `text`, per byte of it."""
    return 8 * len(lzma.compress(text, preset=9)) / len(text)


class _Grams(NamedTuple):
    """The k-grams of a text; a gram is its k bytes as one number, the first byte highest."""

    keys: np.ndarray  # uint64 (G), sorted
    counts: np.ndarray  # int64 (G)
    kinds: np.ndarray  # int64 (G): how many different bytes follow


class ByteNgram:
    """Probabilities of the next byte given up to `order` - 1 before it; order 1 to 8."""

    def __init__(self, text: bytes, order: int = 5) -> None:
        if not 1 <= order <= 8:
            raise ValueError(f"order: expected 1 to 8, got {order}")
        if len(text) < order:
            raise ValueError(f"text: expected {order} bytes or more, got {len(text)}")
        self.order = order
        self._grams = _count(text, order)

    def bits_per_byte(self, text: bytes) -> float:
        """Mean of -log2 P over all bytes of `text`, the first ones from shorter contexts."""
        probability = np.full(len(text), 1 / 256)
        for k in range(1, self.order + 1):
            tail = probability[k - 1 :]  # a view: of the bytes that have a context of k - 1
            tail[:] = self._interpolate(k, _windows(text, k), tail)
        return float(-np.log2(probability).mean())

    def distribution(self, context: bytes) -> np.ndarray:
        """float64 (256): P of each byte behind `context`, of which the last bytes count."""
        probability = np.full(256, 1 / 256)
        for k in range(1, min(self.order, len(context) + 1) + 1):
            before = int.from_bytes(context[len(context) - (k - 1) :], "big") << 8
            grams = np.arange(256, dtype=np.uint64) + np.uint64(before)
            probability = self._interpolate(k, grams, probability)
        return probability

    def _interpolate(self, k: int, grams: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        """P of the last byte of each k-gram; `shorter` is that given one byte less before it."""
        contexts, whole = self._grams[k - 1], self._grams[k]
        known, at = _find(contexts.keys, grams >> np.uint64(8))
        total = np.where(known, contexts.counts[at], 0)
        kinds = np.where(known, contexts.kinds[at], 1)  # (0 + P) / 1 where the context is new
        known, at = _find(whole.keys, grams)
        return (np.where(known, whole.counts[at], 0) + kinds * shorter) / (total + kinds)


def _windows(text: bytes, k: int) -> np.ndarray:
    """uint64 (len(text) - k + 1): the k bytes from each position on, as one number."""
    data = np.frombuffer(text, np.uint8)
    size = max(0, len(data) - k + 1)
    windows = np.zeros(size, np.uint64)
    for i in range(k):
        windows <<= np.uint64(8)
        windows |= data[i : i + size]
    return windows


def _count(text: bytes, order: int) -> list[_Grams]:
    """Tables of the 0-grams (one, the empty) to the `order`-grams, from one sort of the longest.

    A shorter gram is counted where a longest one starts with it: all but at the text's very end.
    """
    windows = _windows(text, order)
    windows.sort()
    keys, counts = _runs(windows)
    tables = [_Grams(keys, counts, np.zeros_like(counts))]
    for _ in range(order):
        shorter, kinds = _runs(keys >> np.uint64(8))
        counts = np.add.reduceat(counts, np.cumsum(kinds) - kinds)
        tables.append(_Grams(shorter, counts, kinds))
        keys = shorter
    return tables[::-1]


def _runs(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different values of a sorted array, and how often each occurs."""
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return ordered[starts], np.diff(np.append(starts, len(ordered)))


def _find(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each of `wanted` is in the sorted `keys`, and where it is or would be."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return keys[at] == wanted, at
