"""Dropout masks from a counter-based generator: never stored, equal bits from every implementation.

Philox4x32 with 7 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
A call with counter (word0, row, plane, 0) under a 64-bit key gives eight 16-bit numbers u_0..u_7
(low, then high half of words 0 to 3); element k is kept where u_k >= threshold(p).

- Norms, embedding, elementwise (row = token, plane = 0): word0 = col // 8, k = col % 8.
- Attention (row = query, column = key, plane = sequence * heads + head):
  word0 = 4 (col // 32) + (col // 2) % 4, k = 2 ((col // 8) % 4) + col % 2.

The optimizer steps round with the same generator (multi_tensor.py).
"""

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 7
_WORD = 0xFFFFFFFF


def threshold(p: float) -> int:
    """The integer below which a 16-bit number drops its element; 65536 drops all."""
    return int(65536 * p + 0.5)


def keep_scale(p: float) -> float:
    """What kept elements are multiplied with; 0 where all are dropped."""
    t = threshold(p)
    return 0.0 if t == 65536 else 65536 / (65536 - t)


def check_p(dropout_p: float) -> None:
    if not 0.0 <= dropout_p <= 1.0:
        raise ValueError(f"dropout_p must lie in [0, 1], got {dropout_p}")


def _multiply(a: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """High and low word of a m, for words held in int64 (which would overflow at 64 bits)."""
    high = ((a >> 16) * m + (((a & 0xFFFF) * m) >> 16)) >> 16
    return high, (a * m) & _WORD


def philox(word0: Tensor, row: Tensor, plane: Tensor, seed: Tensor) -> Tensor:
    """Eight 16-bit numbers for each counter; the int64 arguments broadcast. Returns (..., 8)."""
    c0, c1, c2 = torch.broadcast_tensors(word0, row & _WORD, plane & _WORD)
    c3 = torch.zeros_like(c0)
    k0, k1 = seed & _WORD, (seed >> 32) & _WORD
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    words = torch.stack((c0, c1, c2, c3), dim=-1)
    return torch.stack((words & 0xFFFF, words >> 16), dim=-1).flatten(-2)


def keep_rows(seed: Tensor, rows: Tensor, features: int, dropout_p: float) -> Tensor:
    """What norms, embedding and elementwise ops keep: bool (rows, features)."""
    calls = torch.arange((features + 7) // 8, device=rows.device)
    numbers = philox(calls, rows.long()[:, None], torch.zeros_like(calls), seed)
    return numbers.flatten(1)[:, :features] >= threshold(dropout_p)


def keep_scores(seed: Tensor, planes: Tensor, queries: int, keys: int, dropout_p: float) -> Tensor:
    """What attention keeps: bool (planes, queries, keys); planes = sequence * heads + head."""
    calls = torch.arange((keys + 31) // 32 * 4, device=planes.device)
    rows = torch.arange(queries, device=planes.device)
    numbers = philox(calls, rows[:, None], planes[:, None, None], seed)
    # Axes (..., run of 32 columns, quad, group of 8, half); column = 8 group + 2 quad + half.
    numbers = numbers.unflatten(-2, (-1, 4)).unflatten(-1, (4, 2)).transpose(-3, -2).flatten(-4)
    return numbers[..., :keys] >= threshold(dropout_p)


def apply_rows(x: Tensor, dropout_p: float, seed: Tensor | None, rows: Tensor | None) -> Tensor:
    """dropout(x) for x (T, N), as the references do it."""
    if dropout_p == 0.0:
        return x
    assert seed is not None
    if rows is None:
        rows = torch.arange(x.shape[0], device=x.device)
    keep = keep_rows(seed, rows, x.shape[1], dropout_p)
    return torch.where(keep, x * keep_scale(dropout_p), 0.0)


_library = torch.library.Library("bigfast", "FRAGMENT")
# Drawn by an op of our own: inductor would replace a plain `randint` by another generator's number.
# The argument names the device and keeps calls apart: the partitioner of torch.compile merges calls
# of one op with the same arguments, all but torch's own random ops and `empty`, so that without it
# every layer would have one mask.
_library.define("dropout_seed(Tensor empty) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))


def _draw(device: torch.device | str | None) -> Tensor:
    return torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device=device)


_library.impl("dropout_seed", lambda empty: _draw(empty.device), "CompositeExplicitAutograd")


@torch.library.register_fake("bigfast::dropout_seed")
def _(empty: Tensor) -> Tensor:
    return empty.new_empty(1, dtype=torch.int64)


def dropout_seed(device: torch.device | str | None = None) -> Tensor:
    """A seed, int64 (1), drawn from torch's default generator of `device`, or of torch's default
    device: torch.manual_seed fixes it, and activation checkpointing replays it."""
    if torch.compiler.is_compiling():
        return torch.ops.bigfast.dropout_seed(torch.empty(0, device=device))
    return _draw(device)  # the same number, without the 6 us of an op in Python


def check_seed(seed: Tensor) -> None:
    if seed.dtype != torch.int64 or seed.numel() != 1:
        raise ValueError(f"seed must be one int64, got {seed.dtype} of shape {tuple(seed.shape)}")


def resolve_seed(dropout_p: float, seed: Tensor | None, device: torch.device) -> Tensor | None:
    """The seed that a call uses: None without dropout, the caller's, or a new one."""
    if dropout_p == 0.0:
        return None
    if seed is None:
        return dropout_seed(device)
    check_seed(seed)
    return seed
