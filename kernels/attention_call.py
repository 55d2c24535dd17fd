"""What one call of attention gives its kernels: sizes, strides, which of their parts it needs."""

import math
from typing import ClassVar

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from .dropout import keep_scale
from .launch import Choice

_ALL = 1 << 30  # keys: a window without end, which still can be added to a position
_UNIT = 8  # elements: 16 bytes of 16 bits


class Call:
    """Arguments of csrc/ops.cpp's attention ops, as the kernels take them."""

    # Kernel arguments that vary from batch to batch, or from model to model, without other code.
    NUMBERS: ClassVar = [
        "tiles", "batch", "queries", "keys", "tokens", "heads", "group", "left", "right",
        "threshold", "slopes_batch",
        *(f"{name}_{of}" for name in ("q", "k", "v", "do") for of in ("batch", "token", "head")),
    ]  # fmt: skip

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None,
        cu_seqlens_k: Tensor | None, seqused_k: Tensor | None, slopes: Tensor | None,
        seed: Tensor | None, threshold: int, left: int, right: int, scale: float,
    ):  # fmt: skip
        self.packed = cu_seqlens is not None
        self.queries, self.heads, self.dim = q.shape[-3:]
        self.keys, self.kv_heads = k.shape[-3:-1]
        self.batch = len(q) if cu_seqlens is None else len(cu_seqlens) - 1
        self.tokens = self.queries if self.packed else self.batch * self.queries
        self.dtype = q.dtype
        self.left, self.right = left, right
        self.tensors = (cu_seqlens, cu_seqlens_k, seqused_k, slopes, seed)
        self.numbers = (
            self.batch, self.queries, self.keys, self.tokens, self.heads,
            self.heads // self.kv_heads, min(left, _ALL), min(right, _ALL), threshold,
            self.heads if slopes is not None and slopes.ndim == 2 else 0, scale,
            scale * math.log2(math.e), keep_scale(threshold),
        )  # fmt: skip
        _, queries, keys, _, heads, group, left, right, _, slopes_batch, *scales, _ = self.numbers
        self.decode_numbers = (queries, keys, heads, group, left, right, slopes_batch, *scales)

    @property
    def columns(self) -> int:
        """Programs of one tile of queries: (sequence, head), or packed: heads."""
        return self.heads * (1 if self.packed else self.batch)

    @property
    def key_columns(self) -> int:
        return self.kv_heads * (1 if self.packed else self.batch)

    def query_tiles(self, block: int) -> int:
        return self._tiles(self.queries, block)

    def key_tiles(self, block: int) -> int:
        return self._tiles(self.keys, block)

    def _tiles(self, tokens: int, block: int) -> int:
        """Of each sequence; packed: slots of all, see attention_tiles.find_sequence."""
        return tokens // block + self.batch + 1 if self.packed else triton.cdiv(tokens, block)

    @property
    def _kind(self) -> tuple[int, int]:
        """Bits of an element, dims that registers hold."""
        return 32 if self.dtype == torch.float32 else 16, max(64, self._block_d)

    @property
    def _block_d(self) -> int:
        return max(16, triton.next_power_of_2(self.dim))

    def short(self, choice: dict[str, int] | None) -> int:
        """Keys of the sequences whose backward is one kernel, launched by `choice`; 0: none are.

        launch.json has no choice where dk, dv and scores do not fit into registers together.
        """
        if choice is None or not (self.packed or max(self.queries, self.keys) <= choice["BLOCK_N"]):
            return 0
        return choice["BLOCK_N"]

    @property
    def kind(self) -> str:
        bits, dims = self._kind
        return f"{bits} bits, {dims} dims"

    @property
    def bucket(self) -> str:
        """The shapes that launch alike. Packed lengths are not known here."""
        longest = max(self.queries, self.keys)
        length = next((f"{n} tokens" for n in (128, 512) if longest <= n), "long")
        return f"{self.kind}, {'packed' if self.packed else length}"

    def unit(self, *tensors: Tensor) -> int:
        strides = [n for t in tensors for n in t.stride()[:-1]]
        return _UNIT if all(n % _UNIT == 0 for n in strides) else 1

    def operands(
        self, choice: Choice, q: Tensor, k: Tensor, v: Tensor, *do: Tensor
    ) -> tuple[list[Tensor | TensorDescriptor], dict]:
        """q, k, v and do as a kernel takes them, and what it is compiled for: with TMA in `choice`
        descriptors of the tiles, where they can be described."""
        tensors = [q, k, v, *do]
        constants = self.constants(*tensors) | choice
        if not constants.pop("TMA", 0) or not self._describable(tensors):
            return tensors, constants
        rows = [choice[block] for block in ("BLOCK_M", "BLOCK_N", "BLOCK_N", "BLOCK_M")]
        described = [
            TensorDescriptor(t, list(t.shape), list(t.stride()), [1, n, 1, self._block_d])
            for t, n in zip(tensors, rows)
        ]
        return described, constants | {"UNIT": 0}

    def _describable(self, tensors: list[Tensor]) -> bool:
        """Dense, none of the keys unused: else a tile would show rows that are not its own."""
        if self.packed or self.tensors[2] is not None:
            return False
        return all(
            t.numel() > 0
            and t.data_ptr() % 16 == 0
            and all(n > 0 and n * t.itemsize % 16 == 0 for n in t.stride()[:-1])
            for t in tensors
        )

    def strides(self, *tensors: Tensor) -> list[int]:
        """batch, token, head of each tensor, in units."""
        unit = self.unit(*tensors)
        rows = [(0, *t.stride()) if self.packed else t.stride() for t in tensors]
        return [n // unit for row in rows for n in row[:3]]

    def constants(self, *tensors: Tensor) -> dict:
        """What kernels are compiled for."""
        return {
            "UNIT": self.unit(*tensors),
            "DIM": self.dim,
            "LEFT": self.left >= 0,
            "RIGHT": self.right >= 0,
            # Products of three tf32 parts are as exact as fp32, and run on the matrix units.
            "PRECISION": "tf32x3" if self.dtype == torch.float32 else "tf32",
            "BLOCK_D": self._block_d,
        }
