"""Compiles every Triton kernel for GPUs that are not here, and prints what ptxas made of it.

    python tests/aot/compile.py 80 90        a JSON table of these architectures
    python tests/aot/compile.py --write      all of them, into tests/aot/table.json

The launchers themselves run, on CPU tensors, with Triton's launch replaced by a recorder: what is
compiled is what they would launch, with their blocks, warps and dtypes.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)  # read when Triton is imported

import torch
import triton
from cases import CASES
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor

from bigfast.kernels import launch

TABLE = Path(__file__).with_name("table.json")
ARCHITECTURES = (80, 90, 100, 120)
TYPES = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.uint8: "*u8",
    torch.int16: "*i16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}


# Which matrix instructions an architecture has, best first, as PTX names them.
PRODUCTS = {80: ("mma",), 90: ("wgmma", "mma"), 100: ("tcgen05", "mma"), 120: ("mma",)}
TMA = r"cp\.async\.bulk\.tensor\S*\.shared\S*\.global"
PTX = {"mma": r"\bmma\.sync", "wgmma": r"\bwgmma\.mma_async", "tcgen05": r"\btcgen05\.mma"}


def launches(architecture: int, cases: dict) -> dict[str, tuple[ASTSource, dict]]:
    """What the cases launch on an architecture: "case: kernel" -> source and options."""
    found = {}
    launch.architecture = lambda device: f"sm_{architecture}"

    def record(kernel, *args, grid, warmup, **kwargs):
        names = [parameter.name for parameter in kernel.params]
        given = dict(zip(names, args)) | kwargs
        options = {name: given.pop(name) for name in list(given) if name not in names}
        found[f"{case}: {kernel.__name__}"] = (source(kernel, given), options)

    JITFunction.run = record
    for case, call in cases.items():
        if architecture >= 90 or "described" not in case:
            call()
    return found


def source(kernel: JITFunction, given: dict) -> ASTSource:
    """`kernel` specialised as Triton's launcher would for these arguments."""
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        value = given[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        elif isinstance(value, TensorDescriptor):
            block = f"{TYPES[value.base.dtype].removeprefix('*')}{list(value.block_shape)}"
            signature[parameter.name] = f"tensordesc<{block}>"
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = TYPES[value.dtype]
            attributes[(index,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            signature[parameter.name] = "i32"
            if value % 16 == 0 and not parameter.do_not_specialize:
                attributes[(index,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, constants, attributes)


def spills_in_loops(sass: str) -> int:
    """Accesses to local memory inside innermost loops. What is kept there from before a loop until
    behind it costs little; inside one it costs at every turn."""
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)([^;]*);", sass)
    found = [(int(at, 16), name.split(".")[0], rest) for at, name, rest in lines]
    jumps = [
        (int(target[1], 16), at)
        for at, name, rest in found
        if name == "BRA" and (target := re.search(r"0x([0-9a-f]+)", rest))
    ]
    loops = [(begin, end) for begin, end in jumps if begin < end]
    innermost = [
        (begin, end)
        for begin, end in loops
        if not any(
            (begin, end) != other and begin <= other[0] and other[1] <= end for other in loops
        )
    ]
    local = [at for at, name, _ in found if name in ("LDL", "STL")]
    return sum(begin <= at <= end for at in local for begin, end in innermost)


def measure(kernel: ASTSource, options: dict, architecture: int) -> dict[str, int | str]:
    """Registers and spilled bytes of a thread, shared bytes of a block, widest load in bytes; of
    kernels with products, spills in loops, the matrix instructions ("none" is scalar code), and
    how many tiles are loaded by descriptor, if any."""
    compiled = triton.compile(kernel, target=GPUTarget("cuda", architecture, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        Path(cubin.name).write_bytes(compiled.asm["cubin"])
        dump = lambda what: subprocess.run(
            [triton.knobs.nvidia.cuobjdump.path, what, cubin.name],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        usage = dump("--dump-resource-usage")
        sass = dump("--dump-sass") if "tt.dot" in compiled.asm["ttir"] else ""
    used = {name: int(n) for name, n in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    loads = re.findall(r"ld\.global[\w.:]*?(?:\.v(\d))?\.b(\d+)", compiled.asm["ptx"])
    found = {
        "registers": used["REG"],
        "spilled": used["STACK"] + used["LOCAL"],
        "shared": compiled.metadata.shared,
        "load": max((int(count or 1) * int(bits) // 8 for count, bits in loads), default=0),
    }
    if sass:
        made = [n for n in PRODUCTS[architecture] if re.search(PTX[n], compiled.asm["ptx"])]
        found |= {"looped": spills_in_loops(sass), "products": " and ".join(made) or "none"}
        described = len(re.findall(TMA, compiled.asm["ptx"]))
        found |= {"described": described} if described else {}
    return found


def table(architectures: tuple[int, ...]) -> dict[str, dict[str, dict[str, int | str]]]:
    return {
        f"sm_{architecture}": {
            name: measure(kernel, options, architecture)
            for name, (kernel, options) in launches(architecture, CASES).items()
        }
        for architecture in architectures
    }


if __name__ == "__main__":
    write = sys.argv[1:] == ["--write"]
    wanted = ARCHITECTURES if write else tuple(map(int, sys.argv[1:]))
    result = {"triton": triton.__version__, **table(wanted)}
    text = json.dumps(result, indent=1)
    # One line per kernel.
    flat = lambda match: "{" + " ".join(match[1].split()) + "}"
    text = re.sub(r"\{([^{}]+)\}", flat, text)
    if write:
        TABLE.write_text(text + "\n")
    else:
        print(text)
