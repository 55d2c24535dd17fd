"""The data helpers in NumPy: what `bigfast._data` (csrc/data) computes, bit for bit.

Every function is pure: the rows of micro-batch `position` follow from the arguments alone, so the
data position is one number. Samples form an endless stream: micro-batch `position` holds samples
`position * batch` to `position * batch + batch - 1`, sample g belongs to epoch `g // count`, and
each epoch is a permutation of all samples. A batch may straddle two epochs; none is dropped.

Random numbers are SplitMix64 (Steele, Lea, Flood 2014) read at any index: `bits(key, i) =
mix(key + (i + 1) * golden)`; a child stream is keyed by such a number.

Arrays of ids are int64, token shards uint16 or uint32, all C-contiguous; `seed` is 0 to 2^64 - 1.
"""

from __future__ import annotations

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
ORDER, MASK, PAIR = 0, 1, 2  # first step of every path below the seed
ROUNDS = 6  # of the Feistel network
MAX = 2**63 - 1
MAX_DRAW = 2**32 - 1


def _u64(value) -> np.ndarray:
    return np.atleast_1d(np.asarray(value, dtype=np.uint64))  # arrays wrap silently, scalars warn


def _bits(key, index) -> np.ndarray:
    z = _u64(key) + (_u64(index) + np.uint64(1)) * GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _below(key, index, n) -> np.ndarray:
    return (((_bits(key, index) >> np.uint64(32)) * _u64(n)) >> np.uint64(32)).astype(np.int64)


def _threshold(p: float) -> int:
    return int(p * 4294967296.0 + 0.5)


def _epoch_key(seed: int, epoch: int) -> np.ndarray:
    return _bits(_bits(seed, ORDER), epoch)


def _permute(index: np.ndarray, n: int, key: np.ndarray) -> np.ndarray:
    """A Feistel network on the smallest even number of bits covering n, walked until below n."""
    half = 1
    while half < 32 and 1 << (2 * half) < n:
        half += 1
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    rounds = [_bits(key, r) for r in range(ROUNDS)]
    out = index.astype(np.uint64)
    walking = np.arange(len(out))
    while len(walking):
        left, right = out[walking] >> shift, out[walking] & mask
        for r in rounds:
            left, right = right, left ^ (_bits(r, right) >> np.uint64(64 - half))
        out[walking] = left << shift | right
        walking = walking[out[walking] >= np.uint64(n)]
    return out.astype(np.int64)


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}: expected {low} to {high}, got {value}")


def _check_probability(name: str, p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{name}: expected 0 to 1, got {p}")


def _check_batch(batch: int, width: int, position: int) -> None:
    _check("batch", batch, 1, 2**40 // max(width, 1))
    _check("position", position, 0, MAX // batch - 1)


def _check_array(name: str, array: np.ndarray, dtypes: tuple[str, ...], ndim: int) -> None:
    if array.dtype.name not in dtypes or not array.flags.c_contiguous:
        raise ValueError(
            f"{name}: expected a C-contiguous array of {dtypes[-1]}, got {array.dtype}"
        )
    if array.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} dimensions, got {array.ndim}")


def sample_order(count: int, batch: int, position: int, seed: int) -> np.ndarray:
    """Which of `count` samples micro-batch `position` holds: int64 (batch)."""
    _check("count", count, 1, MAX)
    _check_batch(batch, 1, position)
    samples = np.arange(batch, dtype=np.int64) + position * batch
    out = np.empty(batch, dtype=np.int64)
    for epoch in np.unique(samples // count).tolist():
        of_epoch = samples // count == epoch
        out[of_epoch] = _permute(samples[of_epoch] % count, count, _epoch_key(seed, epoch))
    return out


def num_blocks(total: int, content: int) -> int:
    """How many blocks of `content` tokens an epoch has; their cuts move from epoch to epoch."""
    return max(1, (total - content + 1) // content)


def blocks(
    tokens: np.ndarray,
    content: int,
    batch: int,
    position: int,
    seed: int,
    cls: int | None = None,
    sep: int | None = None,
) -> np.ndarray:
    """Contiguous blocks of `content` tokens, `cls` before and `sep` after each where given.

    tokens (total); returns int64 (batch, content [+ 1] [+ 1]). ValueError where no block fits.
    """
    total = tokens.size
    _check("content", content, 1, MAX_DRAW)
    if total < content:
        raise ValueError(f"tokens: a block of {content} tokens does not fit into {total}")
    _check_batch(batch, content + (cls is not None) + (sep is not None), position)
    for name, id in (("cls", cls), ("sep", sep)):
        if id is not None:
            _check(name, id, 0, MAX_DRAW)
    _check_array("tokens", tokens, ("uint16", "uint32"), 1)
    n = num_blocks(total, content)
    phases = min(content, total - n * content + 1)
    block = sample_order(n, batch, position, seed)
    samples = np.arange(batch, dtype=np.int64) + position * batch
    phase = _below(_bits(_bits(seed, ORDER), samples // n), ROUNDS, phases)
    rows = tokens[(phase + block * content)[:, None] + np.arange(content)].astype(np.int64)
    column = lambda id: np.full((batch, 1), id, dtype=np.int64)
    parts = ([] if cls is None else [column(cls)]) + [rows] + ([] if sep is None else [column(sep)])
    return np.concatenate(parts, axis=1)


def mask_tokens(
    input_ids: np.ndarray,
    special: np.ndarray,
    mask_id: int,
    vocab_size: int,
    probability: float,
    position: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """BERT's masking (Devlin et al. 2018, 3.1): 80 % [MASK], 10 % a random token, 10 % unchanged.

    input_ids int64 (batch, seq); special int64 (n), sorted ids that are neither masked nor drawn.
    Returns (input_ids, labels), labels -100 where nothing is to be predicted.
    """
    _check_array("input_ids", input_ids, ("int64",), 2)
    _check_array("special", special, ("int64",), 1)
    _check("vocab_size", vocab_size, 1, MAX_DRAW)
    _check("mask_id", mask_id, 0, vocab_size - 1)
    _check("position", position, 0, MAX)
    _check_probability("probability", probability)
    for id in special.tolist():
        _check("special", id, 0, vocab_size - 1)
    if (np.diff(special) <= 0).any():
        raise ValueError("special: expected sorted, distinct ids")
    if special.size == vocab_size:
        raise ValueError("special: every token of the vocabulary is special")
    outside = input_ids[(input_ids < 0) | (input_ids >= vocab_size)]
    if outside.size:
        raise ValueError(f"input_ids: {outside[0]} is outside the vocabulary of {vocab_size}")
    count = input_ids.size
    key = _bits(_bits(seed, MASK), position)
    bits = _bits(key, np.arange(count)).reshape(input_ids.shape)
    other = _below(key, count + np.arange(count), vocab_size - special.size)
    for id in special.tolist():
        other += other >= id
    picked = (bits >> np.uint64(32)).astype(np.int64) < _threshold(probability)
    picked &= ~np.isin(input_ids, special)
    fate = (bits & np.uint64(MAX_DRAW)).astype(np.int64)
    random = fate < _threshold(0.9)
    out = np.where(picked & random, other.reshape(input_ids.shape), input_ids)
    out[picked & (fate < _threshold(0.8))] = mask_id
    return out, np.where(picked, input_ids, -100)


def chunk_documents(
    documents: np.ndarray, sentences: np.ndarray, separator: int, length: int
) -> np.ndarray:
    """Cuts documents into chunks of consecutive sentences of `length` tokens or more, two at least.

    documents int64 (D + 1): token offsets; sentences int64 (N): token starts; separator: how many
    tokens (0 or 1) close each document. Returns int64 (n, 4): first sentence, sentence after the
    last, token after the chunk's last, token after the document's last (no separator).
    """
    _check_array("documents", documents, ("int64",), 1)
    _check_array("sentences", sentences, ("int64",), 1)
    _check("documents", documents.size, 1, MAX)
    _check("separator", separator, 0, 1)
    _check("length", length, 2, MAX_DRAW)
    starts = sentences.tolist()
    chunks = []
    s = 0
    begin = int(documents[0])
    for d, end in enumerate(documents[1:].tolist(), 1):
        stop = end - separator
        if begin < 0 or stop < begin:
            raise ValueError(f"documents: offset {d} is {end} after {begin}")
        first = s
        while s < len(starts) and starts[s] < stop:
            following = min(starts[s + 1], stop) if s + 1 < len(starts) else stop
            if starts[s] < begin or following <= starts[s]:
                raise ValueError(f"sentences: start {s} is {starts[s]}, out of order")
            if following - starts[first] >= length and s > first:
                chunks.append((first, s + 1, following, stop))
                first = s + 1
            s += 1
        if s - first >= 2:
            chunks.append((first, s, stop, stop))
        begin = end
    return np.array(chunks, dtype=np.int64).reshape(-1, 4)


def _truncate(a: np.ndarray, b: np.ndarray, limit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The longer of the two gives way first, as in BERT."""
    cases = [a + b <= limit, 2 * b <= limit, 2 * a <= limit]
    return (
        np.select(cases, [a, limit - b, a], limit - limit // 2),
        np.select(cases, [b, b, limit - a], limit // 2),
    )


def sentence_pairs(
    chunks: np.ndarray,
    sentences: np.ndarray,
    length: int,
    batch: int,
    position: int,
    seed: int,
    short_probability: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Segments A and B of next-sentence prediction, together `length` tokens at most.

    Each sample is a chunk (see `chunk_documents`), split at a random sentence. For half of them B
    comes from a random place of another document, as long as the true B would be. With probability
    `short_probability` the limit is drawn from 2 to `length`. A keeps its end, B its beginning.
    Returns spans int64 (batch, 4), the tokens [start, stop) of A and of B, and labels int64
    (batch): 0 where B follows A, else 1. ValueError where all chunks are of one document.
    """
    _check_array("chunks", chunks, ("int64",), 2)
    _check_array("sentences", sentences, ("int64",), 1)
    if chunks.shape[1] != 4:
        raise ValueError(f"chunks: expected 4 columns, got {chunks.shape[1]}")
    _check("chunks", len(chunks), 1, MAX_DRAW)
    _check("length", length, 2, MAX_DRAW)
    _check_batch(batch, 4, position)
    _check_probability("short_probability", short_probability)

    def split(chunk: np.ndarray, index: int) -> np.ndarray:
        first, end = chunk[:, 0], chunk[:, 1]
        bad = (first < 0) | (end - first < 2) | (end > sentences.size)
        if bad.any():
            first, end = first[bad][0], end[bad][0]
            raise ValueError(
                f"chunks: sentences {first}..{end} are not two or more of {sentences.size}"
            )
        return sentences[first + 1 + _below(draw, index, end - first - 1)]

    samples = np.arange(batch, dtype=np.int64) + position * batch
    chunk = chunks[sample_order(len(chunks), batch, position, seed)]
    draw = _bits(_bits(seed, PAIR), samples)
    middle = split(chunk, 0)
    begin, start, stop = sentences[chunk[:, 0]], middle.copy(), chunk[:, 2].copy()
    labels = (_bits(draw, 1) >> np.uint64(63)).astype(np.int64)
    random = labels == 1
    low = np.searchsorted(chunks[:, 3], chunk[:, 3], "left")
    same = np.searchsorted(chunks[:, 3], chunk[:, 3], "right") - low
    if (same[random] == len(chunks)).any():
        raise ValueError(
            "chunks: a random next sentence needs two documents with two sentences each"
        )
    other = _below(draw, 2, len(chunks) - same)
    other += np.where(other >= low, same, 0)
    partner = chunks[np.where(random, other, 0)]
    start[random] = split(partner, 3)[random]
    stop[random] = np.minimum(start + chunk[:, 2] - middle, partner[:, 3])[random]
    if ((middle < begin) | (stop < start)).any():
        raise ValueError("chunks: tokens are out of order")
    short = (_bits(draw, 4) >> np.uint64(32)).astype(np.int64) < _threshold(short_probability)
    limit = np.where(short, 2 + _below(draw, 5, length - 1), length)
    a, b = _truncate(middle - begin, stop - start, limit)
    return np.stack([middle - a, middle, start, start + b], axis=1), labels


def span_rows(
    tokens: np.ndarray, spans: np.ndarray, seq: int, cls: int, sep: int, pad: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[CLS] A [SEP] for spans (batch, 2), [CLS] A [SEP] B [SEP] for (batch, 4), padded to `seq`.

    What does not fit is cut from the end of the longer segment. Returns input_ids, attention_mask
    and token_type_ids, each int64 (batch, seq).
    """
    _check_array("spans", spans, ("int64",), 2)
    batch, width = spans.shape
    if width not in (2, 4):
        raise ValueError(f"spans: expected 2 or 4 columns, got {width}")
    _check("seq", seq, 5 if width == 4 else 3, 2**40 // max(batch, 1))
    for name, id in (("cls", cls), ("sep", sep), ("pad", pad)):
        _check(name, id, 0, MAX_DRAW)
    _check_array("tokens", tokens, ("uint16", "uint32"), 1)
    ids = np.full((batch, seq), pad, dtype=np.int64)
    mask = np.zeros((batch, seq), dtype=np.int64)
    types = np.zeros((batch, seq), dtype=np.int64)
    for row, span in enumerate(spans.tolist()):
        for start, stop in zip(span[::2], span[1::2]):
            if not 0 <= start <= stop <= tokens.size:
                raise ValueError(
                    f"spans: row {row} holds {start}..{stop}, "
                    f"which is not within the {tokens.size} tokens"
                )
        second = span[3] - span[2] if width == 4 else 0
        lengths = (span[1] - span[0], second, seq - width // 2 - 1)
        a, b = _truncate(*(np.asarray(n) for n in lengths))
        out = [cls, *tokens[span[0] : span[0] + a].tolist(), sep]
        types_from = len(out)
        if width == 4:
            out += [*tokens[span[2] : span[2] + b].tolist(), sep]
        ids[row, : len(out)] = out
        mask[row, : len(out)] = 1
        types[row, types_from : len(out)] = 1
    return ids, mask, types
