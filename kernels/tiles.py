"""How elementwise kernels cut rows (T, N) into tiles, and how kernels assert.

256 columns of 16 bits are what one warp loads at once, 16 bytes per thread, and divide the widths
of most models, so that few lanes idle; 8 rows of them give each of 4 warps two loads per input.
"""

import triton
import triton.language as tl

NUM_WARPS = 4
_TILE = 2048

# Launch options of kernels that check indices with tl.device_assert: nobody could read them before
# without waiting for the GPU. Checks of every sum's overflow, which come with it, are left out.
ASSERTING = {"debug": True, "sanitize_overflow": False}


def tile(features: int) -> tuple[int, int]:
    """Rows and columns of a tile."""
    cols = min(256, max(16, triton.next_power_of_2(features)))
    return _TILE // cols, cols


@triton.jit
def columns(FEATURES: tl.constexpr, COLS: tl.constexpr):
    """This program's columns (1, COLS), and which of them exist."""
    cols = (tl.program_id(1) * COLS + tl.arange(0, COLS))[None, :]
    return cols, cols < FEATURES
