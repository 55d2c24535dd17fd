"""How often kernels are compiled over 200 batches; prints "case: kernel" -> compilations as JSON.

    python tests/aot/compilations.py dense     attention of batches, and decoding
    python tests/aot/compilations.py packed    attention of packed ones
    python tests/aot/compilations.py rows      every op that takes rows, one case each

The launchers run on CPU tensors that hardly anybody touches; Triton's binder says what it would
compile.
"""

import json
import os
import random
import sys

os.environ.pop("TRITON_INTERPRET", None)  # read when Triton is imported

import cases
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from bigfast.kernels import attention, attention_decode, launch

ARCHITECTURE = 90
BACKEND = make_backend(GPUTarget("cuda", ARCHITECTURE, 32))
# Of each op the first case, but for those whose batches are made below, and the optimizers', whose
# tensors are the same at every step.
ROWS = {name.split()[0]: name for name in reversed(cases.CASES)}
ROWS = {op: name for op, name in ROWS.items() if name not in cases.optimizer_cases.CASES}
ROWS = {op: name for op, name in ROWS.items() if not op.startswith("attention")}
binders: dict = {}
found: dict[str, set] = {}
case = ""


def record(kernel, *args, grid, warmup, **options):
    if kernel not in binders:
        binders[kernel] = create_function_from_signature(kernel.signature, kernel.params, BACKEND)
    _, specialization, options = binders[kernel](*args, **options)
    name = f"{case}: {kernel.__name__}"
    found.setdefault(name, set()).add(str((specialization, options)))


def attend(packed: bool) -> None:
    """Attention of a random batch, forward and backward, with dropout, and a step of decoding."""
    b, s = random.randint(1, 64), random.randint(1, 2048)
    at = (b * s, 12, 64) if packed else (b, s, 12, 64)
    q = torch.empty(at, dtype=torch.bfloat16)
    ends = torch.empty(b + 1, dtype=torch.int32) if packed else None
    seed = torch.empty(1, dtype=torch.int64)
    options = (ends, None, None, None, seed, random.randint(1, 65536), -1, 0, random.random() + 1)
    o, lse = attention.attention_fwd(q, q, q, *options)
    attention.attention_bwd(o, q, q, q, o, lse, *options)
    if not packed:
        attention_decode.attention_decode(q[:, :1], q, q, None, None, -1, 0, 0.125)


def rows() -> None:
    """The cases of compile.py with a random number of tokens."""
    global case
    cases.T = random.randint(1, 2) * random.randint(1, 2048)
    for case in ROWS.values():
        cases.CASES[case]()


if __name__ == "__main__":
    JITFunction.run = record
    launch.architecture = lambda device: f"sm_{ARCHITECTURE}"
    random.seed(0)
    (layout,) = sys.argv[1:]
    case = layout
    for _ in range(200):
        rows() if layout == "rows" else attend(layout == "packed")
    print(json.dumps({name: len(keys) for name, keys in found.items()}))
