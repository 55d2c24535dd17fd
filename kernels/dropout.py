"""Dropout masks: those of bigfast/ops/dropout.py, bit for bit.

One call of Philox4x32-7 per eight columns gives the eight 16-bit numbers of those columns. Rows:
they are neighbours, so that a thread which loads 16 bytes draws for just the elements it holds.
Scores: they are those that a thread holds of an `mma` accumulator. Nothing is shuffled.
"""

import triton
import triton.language as tl


@triton.jit
def numbers(
    seed,  # int64 (1)
    first,  # word0 of the first call
    row,
    plane,
    BLOCK: tl.constexpr,  # a multiple of 8
):
    """The 16-bit numbers of BLOCK // 8 calls, in order: int32 (BLOCK)."""
    calls = first + tl.arange(0, BLOCK // 8)
    w0, w1, w2, w3 = tl.philox(tl.load(seed), calls, row, plane, 0, 7)
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3))  # [call, i, j] holds word 2 i + j
    halves = tl.join(words & 0xFFFF, words >> 16)  # low, then high half of each word
    return tl.reshape(halves, (BLOCK,)).to(tl.int32)


@triton.jit
def keep_row(
    seed,  # int64 (1)
    row,  # the logical row: plane 0 of the counters
    threshold,  # 0..65536: numbers below it drop their elements
    BLOCK: tl.constexpr,  # columns, a multiple of 8
):
    """Which columns of a row are kept: bool (BLOCK)."""
    return numbers(seed, 0, tl.cast(row, tl.uint32), 0, BLOCK) >= threshold


@triton.jit
def keep_scores(
    seed,  # int64 (1)
    plane,  # sequence * heads + head
    rows,  # int32 (ROWS): queries
    first,  # the first key, a multiple of 32
    threshold,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,  # a multiple of 32
):
    """Which scores of a tile are kept: bool (ROWS, KEYS)."""
    # Counters are a row and a column of numbers: the first rounds work on these alone.
    calls = (first // 8 + tl.arange(0, KEYS // 8))[None, :]
    w0, w1, w2, w3 = tl.philox(tl.load(seed), calls, rows[:, None], plane, 0, 7)
    words = tl.join(tl.join(w0, w1), tl.join(w2, w3))  # [row, call, i, j] holds word 2 j + i
    numbers = tl.join(words & 0xFFFF, words >> 16)
    # (row, run of 32 columns, quad, i, j, half); column = 32 run + 8 word + 2 quad + half.
    numbers = tl.reshape(numbers, (ROWS, KEYS // 32, 4, 2, 2, 2))
    numbers = tl.permute(numbers, (0, 1, 4, 3, 2, 5))
    return tl.reshape(numbers, (ROWS, KEYS)).to(tl.int32) >= threshold


@triton.jit
def dropped(
    v,  # fp32 (BLOCK): a row
    seed,  # int64 (1)
    rows,  # int32 (T): logical rows, or None: the row's own number
    row,
    threshold,
    scale,  # of what is kept
    BLOCK: tl.constexpr,
):
    """dropout(v), and so its gradient."""
    logical = row
    if rows is not None:
        logical = tl.load(rows + row)
    return tl.where(keep_row(seed, logical, threshold, BLOCK), v * scale, 0.0)


def keep_scale(threshold: int) -> float:
    """What kept elements are multiplied with; 0 where all are dropped."""
    return 0.0 if threshold == 65536 else 65536 / (65536 - threshold)
