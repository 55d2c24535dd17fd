"""What the optimizer steps share: one launch over all tensors of a list, and how p is written.

A launch has one program per chunk of CHUNK elements. Two tables on the device say what is whose:
`chunks` has the tensor and the place in it of each program, `tensors` one row of addresses per
tensor. They are built once per list, and again only where an address or a size has changed, so
that a step costs the host little, copies nothing and waits for nothing. A step's numbers that may
change from one step to the next (step, lr, grad_scale, found_inf) can be tensors on the device: a
CUDA graph that was captured with them goes on reading them.

A chunk is taken in blocks; whole ones are loaded 16 bytes at a time, without masks.
Rounding by chance: bigfast/ops/multi_tensor.py, bit for bit.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .dropout import numbers

CHUNK = 8192
BLOCK = 1024  # 8 elements of each tensor per thread: enough loads in flight
NUM_WARPS = 4

# Columns of `tensors`. A step that has not all of them has 0 there.
PARAM = tl.constexpr(0)
GRAD = tl.constexpr(1)
EXP_AVG = tl.constexpr(2)
EXP_AVG_SQ = tl.constexpr(3)
MASTER = tl.constexpr(4)
SIZE = tl.constexpr(5)
PLANE = tl.constexpr(6)  # the place in the caller's list, for the random numbers
FIRST_CHUNK = tl.constexpr(7)
COLUMNS = tl.constexpr(8)

_TYPES = {
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}
_KEPT = 64  # tables: of some optimizers, and of gradients that have a few places in turn


# -- in the kernels --------------------------------------------------------------------------------


@triton.jit
def number(value):
    """A number of the step, fp32, which is an argument itself or stands on the device."""
    if value.dtype.is_ptr():
        return tl.load(value).to(tl.float32)
    else:
        return value


@triton.jit
def signed_scale(
    grad_scale,  # one number, or None
    sign,  # -1: maximize
):
    """What gradients are multiplied with."""
    if grad_scale is None:
        return sign
    else:
        return number(grad_scale) * sign


@triton.jit
def skips(found_inf):
    """Whether a gradient was infinite, so that nothing may be written."""
    if found_inf is None:
        return False
    else:
        return number(found_inf) != 0.0


@triton.jit
def chunk(
    tensors,  # int64 (N, COLUMNS)
    chunks,  # int32 (C, 2): tensor, place
    CHUNK: tl.constexpr,
):
    """This program's tensor, its row of `tensors`, the first and the end of its elements."""
    at = chunks + 2 * tl.program_id(0)
    tensor = tl.load(at)
    row = tensors + tensor.to(tl.int64) * COLUMNS
    begin = tl.load(at + 1).to(tl.int64) * CHUNK
    return tensor, row, begin, tl.minimum(begin + CHUNK, tl.load(row + SIZE))


@triton.jit
def pointer(row, COLUMN: tl.constexpr, TYPE: tl.constexpr, ALIGNMENT: tl.constexpr):
    """Where a tensor of this row begins: at a multiple of so many bytes."""
    return tl.multiple_of(tl.load(row + COLUMN).to(tl.pointer_type(TYPE)), ALIGNMENT)


@triton.jit
def pointers(
    row,
    TYPE: tl.constexpr,
    GRAD_TYPE: tl.constexpr,
    HAS_MASTER: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Where this row's tensors begin: what p is read from, param, grad, exp_avg, exp_avg_sq."""
    # A thread takes 4 elements at once, of 16 bits too: the layout of the states, so that nothing
    # moves between threads.
    PART: tl.constexpr = (
        2 if ALIGNED else 8
    )  # of the bits of an element: 4 elements, or 1, in bytes
    param = pointer(row, PARAM, TYPE, TYPE.primitive_bitwidth // PART)
    weight = param
    if HAS_MASTER:
        weight = pointer(row, MASTER, tl.float32, 32 // PART)
    return (
        weight,
        param,
        pointer(row, GRAD, GRAD_TYPE, GRAD_TYPE.primitive_bitwidth // PART),
        pointer(row, EXP_AVG, tl.float32, 32 // PART),
        pointer(row, EXP_AVG_SQ, tl.float32, 32 // PART),
    )


@triton.jit
def blocks(begin, end, TAIL: tl.constexpr, BLOCK: tl.constexpr):
    """From where to where a chunk's whole blocks go, or its last one that is not whole.

    Kernels loop over both kinds; in the first kind nothing is masked.
    """
    middle = begin + (end - begin) // BLOCK * BLOCK
    if TAIL:
        return middle, end
    else:
        return begin, middle


@triton.jit
def load(source, i, end, TAIL: tl.constexpr):
    """Elements i (BLOCK), of which those from `end` on are 0 where TAIL says that there are any."""
    if TAIL:
        return tl.load(source + i, mask=i < end, other=0.0).to(tl.float32)
    else:
        return tl.load(source + i).to(tl.float32)


@triton.jit
def store(target, i, value, end, TAIL: tl.constexpr):
    value = value.to(target.dtype.element_ty)
    if TAIL:
        tl.store(target + i, value, mask=i < end)
    else:
        tl.store(target + i, value)


@triton.jit
def only(value, i, end, TAIL: tl.constexpr):
    """The values before `end`, and 0 from there on."""
    if TAIL:
        return tl.where(i < end, value, 0.0)
    else:
        return value


@triton.jit
def write(
    p,  # fp32 (BLOCK)
    at,  # pointers
    first,  # int64: the block's first element, a multiple of BLOCK
    end,
    seed,  # int64 (1): the parameter is bf16 and rounded by chance; or None: to nearest
    plane,
    HAS_MASTER: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Give p to the master if there is one, and, rounded, to the parameter."""
    weight, param, _, _, _ = at
    i = first + tl.arange(0, BLOCK)
    if HAS_MASTER:
        store(weight, i, p, end, TAIL)
    if seed is not None:
        call = first // 8
        drawn = numbers(seed, call.to(tl.uint32), (call >> 32).to(tl.uint32), plane, BLOCK)
        bits = p.to(tl.int32, bitcast=True)
        by_chance = ((bits + drawn) & -65536).to(tl.float32, bitcast=True)
        p = tl.where((bits & 0x7F800000) != 0x7F800000, by_chance, p)  # NaN and Inf stay
    store(param, i, p, end, TAIL)


@triton.jit
def tensor_sum(
    sums,  # fp32 (C)
    row,
    CHUNK: tl.constexpr,
):
    """The sum over the chunks of one tensor, in fp64 and in a fixed order."""
    LANES: tl.constexpr = 1024
    first = tl.load(row + FIRST_CHUNK)
    count = tl.cdiv(tl.load(row + SIZE), CHUNK)
    total = tl.zeros((LANES,), tl.float64)
    for start in range(0, count, LANES):
        i = start + tl.arange(0, LANES)
        total += tl.load(sums + first + i, mask=i < count, other=0.0).to(tl.float64)
    return tl.sum(total, 0)


# -- tables ----------------------------------------------------------------------------------------


class Group(NamedTuple):
    """Tensors of a list that one launch takes: of the same dtypes and alignment."""

    tensors: Tensor  # int64 (N, COLUMNS)
    chunks: Tensor  # int32 (C, 2)
    options: dict[str, Any]  # of the kernels

    def seed(self, seed: Tensor | None) -> Tensor | None:
        """The seed, where parameters are rounded by chance."""
        rounds = self.options["TYPE"] is tl.bfloat16 and not self.options["HAS_MASTER"]
        return seed if rounds else None

    def scratch(self, *shape: int) -> Tensor:
        return self.tensors.new_empty(shape, dtype=torch.float32)


_tables: OrderedDict[tuple, list[Group]] = OrderedDict()
# A captured graph reads its tables at each replay, and writes those that were made while it was
# captured, from memory of the host: they stay.
_captured: list[list[Group] | Tensor] = []


def groups(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor] = (),
    exp_avg_sqs: Sequence[Tensor] = (),
    masters: Sequence[Tensor] = (),
) -> list[Group]:
    """The tables of a list; all of its tensors are contiguous and on one device."""
    lists = (params, grads, exp_avgs, exp_avg_sqs, masters)
    device = params[0].device
    key = (
        device,
        *(tuple(map(Tensor.data_ptr, tensors)) for tensors in lists),
        tuple(map(Tensor.numel, params)),
        tuple([(param.dtype, grad.dtype) for param, grad in zip(params, grads)]),
    )
    found = _tables.get(key)
    if found is None:
        found = _make(key, device)
        if not _captures(device):  # else it is written at a replay: no other step may rely on it
            _tables[key] = found
        if len(_tables) > _KEPT:
            _tables.popitem(last=False)
    elif len(_tables) > _KEPT // 2:
        _tables.move_to_end(key)
    if _captures(device):
        _captured.append(found)
    return found


def _captures(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _make(key: tuple, device: torch.device) -> list[Group]:
    _, *addresses, sizes, dtypes = key
    members: dict[tuple, list[tuple]] = defaultdict(list)
    for plane, (size, kinds) in enumerate(zip(sizes, dtypes)):
        if size == 0:
            continue
        row = [column[plane] if column else 0 for column in addresses]
        aligned = all(address % 16 == 0 for address in row)
        members[(*kinds, aligned)].append((*row, size, plane))
    made = []
    for (param, grad, aligned), rows in members.items():
        make_chunks = _chunks.__wrapped__ if _captures(device) else _chunks
        chunks, firsts = make_chunks(tuple(row[5] for row in rows), device)
        tensors = torch.tensor([(*row, first) for row, first in zip(rows, firsts)])
        options = {
            "TYPE": _TYPES[param], "GRAD_TYPE": _TYPES[grad], "ALIGNED": aligned,
            "HAS_MASTER": bool(addresses[-1]), "CHUNK": CHUNK, "BLOCK": BLOCK,
            "num_warps": NUM_WARPS,
        }  # fmt: skip
        made.append(Group(_to(tensors, device), chunks, options))
    return made


@lru_cache(maxsize=_KEPT)
def _chunks(sizes: tuple[int, ...], device: torch.device) -> tuple[Tensor, list[int]]:
    """Tensor and place of each chunk, and the first chunk of each tensor."""
    counts = (torch.tensor(sizes) + CHUNK - 1) // CHUNK
    firsts = counts.cumsum(0) - counts
    tensor = torch.arange(len(sizes)).repeat_interleave(counts)
    place = torch.arange(len(tensor)) - firsts[tensor]
    return _to(torch.stack((tensor, place), 1).int(), device), firsts.tolist()


def _to(table: Tensor, device: torch.device) -> Tensor:
    """`table` on the device, without waiting for it."""
    if device.type == "cpu":
        return table
    pinned = table.pin_memory()
    if _captures(device):
        _captured.append(pinned)
    return pinned.to(device, non_blocking=True)


def numbers_of(params: Sequence[Tensor], *values: Tensor | None) -> list[Tensor | float | None]:
    """Numbers of a step as kernels take them: where they stand on the device, or as arguments."""
    device = params[0].device
    return [v if v is None or v.device == device else float(v) for v in values]
