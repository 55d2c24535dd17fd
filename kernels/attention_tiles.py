"""What the kernels of attention share: where tiles lie, what they see, weights and their gradients.

Dense and packed are one code path, as in C++: sequence b is a range of queries and one of keys, and
a tensor's row (b, token, head) begins at b x_batch + token x_token + head x_head, in units of UNIT
elements: so the compiler knows what 16-byte loads need, whatever the batch. Or, UNIT 0, x is a
descriptor of tiles, and what begins "there" is x with the numbers of the sequence and the head:
Hopper and Blackwell load such a tile with one instruction, and fill what lies beyond with zeros.
"""

import triton
import triton.language as tl


@triton.jit
def find_sequence(
    slot,  # number of a tile of all sequences
    cu_seqlens,  # int32 (B + 1)
    batch,  # B
    BLOCK: tl.constexpr,  # tokens of a tile
):
    """Which packed sequence a tile is of, and its first token there.

    Sequence b has the slots from cu_seqlens[b] // BLOCK + b on: as many as it needs, or one more.
    So nobody has to count tiles ahead, neither the host, which would wait for the lengths, nor
    another kernel. "Sequence" B has the tokens behind the last one.
    """
    found = tl.zeros((), tl.int32)
    lanes = tl.arange(0, 128)
    for start in range(1, batch + 1, 128):
        b = start + lanes
        end = tl.load(cu_seqlens + b, mask=b <= batch, other=0)
        found += tl.sum(((b <= batch) & (end // BLOCK + b <= slot)).to(tl.int32), 0)
    begin = tl.load(cu_seqlens + found)
    return found, (slot - begin // BLOCK - found) * BLOCK


@triton.jit
def tile_of(
    cu_seqlens,  # int32 (B + 1) of the tokens that are cut into tiles, or None: dense
    batch,
    heads,  # of the tensor that is cut
    tiles,  # of each sequence, or packed: of all
    REVERSED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """This program's sequence, head, and first token in the sequence."""
    program = tl.program_id(0)
    tile = program % tiles
    rest = program // tiles
    if cu_seqlens is None:
        if REVERSED:  # causal: the longest first, so that none is left alone at the end
            tile = tiles - 1 - tile
        b = rest // heads
        head = rest % heads
        first = tile * BLOCK
    else:
        b, first = find_sequence(tile, cu_seqlens, batch, BLOCK)
        head = rest
    return b, head, first


@triton.jit
def sequence(b, cu_seqlens, cu_seqlens_k, seqused_k, batch, queries, keys):
    """Sequence b: first query, queries, first key, keys that count, and all its keys.

    Beyond the last there are tokens of nobody, which see nothing and are not seen.
    """
    if cu_seqlens is None:
        q_begin = b * 0
        k_begin = b * 0
        q_len = queries + q_begin
        k_all = keys + k_begin
    else:
        inside = b < batch
        q_begin = tl.load(cu_seqlens + b)
        q_len = tl.load(cu_seqlens + b + 1, mask=inside, other=queries) - q_begin
        ends = cu_seqlens
        if cu_seqlens_k is not None:
            ends = cu_seqlens_k
        k_begin = tl.load(ends + b)
        k_all = tl.load(ends + b + 1, mask=inside, other=keys) - k_begin
    k_len = k_all
    if seqused_k is not None:
        k_len = tl.load(seqused_k + b, mask=b < batch, other=0)
    if cu_seqlens is not None:
        k_len = tl.where(b < batch, k_len, 0)
    return q_begin, q_len, k_begin, k_len, k_all


@triton.jit
def row_at(x, b, token, head, x_batch, x_token, x_head, UNIT: tl.constexpr):
    """Where row (b, token, head) of x begins; of a descriptor's, which is dense: token 0."""
    if UNIT == 0:
        row = (x, b, head)
    else:
        at = tl.cast(b, tl.int64) * x_batch + tl.cast(token, tl.int64) * x_token
        at += tl.cast(head, tl.int64) * x_head
        row = x + at * UNIT
    return row


@triton.jit
def load_tile(
    x,  # of row 0, by row_at
    first,
    rows,  # that there are
    x_token,
    UNIT: tl.constexpr,
    CHECKED: tl.constexpr,  # there may be fewer than ROWS of them from `first` on
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Rows first .. first + ROWS - 1, 0 beyond the last row and dim."""
    if UNIT == 0:
        described, b, head = x
        value = described.load([b, first, head, 0]).reshape(ROWS, BLOCK_D)
    else:
        row = tl.arange(0, ROWS)
        col = tl.arange(0, BLOCK_D)
        # 64 bits for where the tile is, 32 within it.
        tile = x + tl.cast(first, tl.int64) * x_token * UNIT
        at = tile + (row[:, None] * x_token) * UNIT + col[None, :]
        inside_rows = (first + row < rows)[:, None]
        inside_dims = (col < DIM)[None, :]
        if CHECKED and DIM != BLOCK_D:
            value = tl.load(at, mask=inside_rows & inside_dims, other=0.0)
        elif CHECKED:
            value = tl.load(at, mask=inside_rows, other=0.0)
        elif DIM != BLOCK_D:
            value = tl.load(at, mask=inside_dims, other=0.0)
        else:
            value = tl.load(at)
    return value


@triton.jit
def store_tile(
    x,  # of row 0, contiguous
    value,  # (ROWS, BLOCK_D)
    first,
    rows,
    x_token,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.arange(0, ROWS)
    col = tl.arange(0, BLOCK_D)
    tile = x + tl.cast(first, tl.int64) * x_token
    at = tile + row[:, None] * x_token + col[None, :]
    inside = (first + row < rows)[:, None] & (col < DIM)[None, :]
    tl.store(at, value.to(x.dtype.element_ty), mask=inside)


@triton.jit
def keys_seen(
    first,  # the first of BLOCK_M queries
    q_len,
    k_len,
    left,
    right,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Keys [begin, end) that some of the queries see, and `whole`: up to there, all of them do.

    begin and `whole` are multiples of BLOCK_N.
    """
    # Query i stands where key i + shift does.
    shift = k_len - q_len
    begin = first * 0
    end = k_len
    whole = k_len
    if RIGHT:
        last = tl.minimum(first + BLOCK_M, q_len) - 1
        end = tl.minimum(k_len, tl.maximum(0, last + shift + 1 + right))
        whole = tl.minimum(k_len, tl.maximum(0, first + shift + 1 + right))
    whole = whole // BLOCK_N * BLOCK_N
    if LEFT:
        begin = tl.maximum(0, first + shift - left) // BLOCK_N * BLOCK_N
        whole = begin
    return begin, whole, end


@triton.jit
def queries_seeing(
    first,  # the first of BLOCK_N keys
    q_len,
    k_len,
    left,
    right,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Queries [begin, end) that see some of the keys; from `whole` on all see all of them."""
    shift = k_len - q_len
    begin = first * 0
    end = tl.where(first < k_len, q_len, 0)
    whole = begin
    if RIGHT:
        begin = tl.maximum(0, first - shift - right) // BLOCK_M * BLOCK_M
        whole = tl.maximum(0, first + BLOCK_N - 1 - shift - right)
        whole = tl.minimum(tl.cdiv(whole, BLOCK_M) * BLOCK_M, end)
    if LEFT:
        end = tl.minimum(end, tl.maximum(0, first + BLOCK_N - shift + left))
        whole = end
    return begin, whole, end


@triton.jit
def seen(rows, cols, shift, k_len, left, right, LEFT: tl.constexpr, RIGHT: tl.constexpr):
    """Which queries see which keys: bool (rows, cols)."""
    inside = (cols < k_len)[None, :]
    distance = cols[None, :] - rows[:, None] - shift
    if LEFT:
        inside = inside & (distance >= -left)
    if RIGHT:
        inside = inside & (distance <= right)
    return inside


@triton.jit
def slope_of(slopes, exists, b, head, slopes_batch, scale):
    """A head's ALiBi slope in units of scores before `scale`; 0 where there are none."""
    slope = 0.0
    if slopes is not None:
        slope = tl.load(slopes + b * slopes_batch + head, mask=exists, other=0.0) / scale
    return slope


@triton.jit
def scores(q, k, slopes, slope, rows, cols, shift, PRECISION: tl.constexpr):
    """q k^T and ALiBi's bias, before `scale`: fp32 (rows, cols)."""
    s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    if slopes is not None:
        s -= slope * tl.abs(cols[None, :] - rows[:, None] - shift).to(tl.float32)
    return s
