"""Every CUDA kernel compiles for every GPU, with what the committed table says it needs, and the
library registers its ops; neither needs a GPU, but nvcc. One architecture here, all of them where
BIGFAST_CUDA_ALL is set (make cuda-all). The table is written by `python tests/cuda/cubins.py
--write`.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cubins import ARCHITECTURES, built, table

from bigfast.ops import registry
from bigfast.ops.kernels import native_ops

TABLE = json.loads((Path(__file__).parent / "table.json").read_text())
ALL = bool(os.environ.get("BIGFAST_CUDA_ALL"))
FIRST = "80"
# What a block may have without asking, and so all that is declared in a kernel.
SHARED = 48 * 1024
# Whose registers are full: bytes that it may keep elsewhere, outside of its loops.
SPILLS = {("75", "attention_keys_kernel<f16, 8, 128>"): 16}
OPS = [op for op in registry.ops() if any(c.name == "cpp" for c in registry.candidates(op, "cuda"))]

pytestmark = [
    pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc"),
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="triton, which has cuobjdump, is missing"
    ),
]


@pytest.mark.xdist_group("nvcc")
@pytest.mark.parametrize("architecture", ARCHITECTURES if ALL else (FIRST,))
def test_compiles_as_the_table_says(architecture):
    found = table((architecture,))
    kernels, wanted = found[f"sm_{architecture}"], TABLE[f"sm_{architecture}"]
    assert kernels.keys() == wanted.keys()
    for name, kernel in kernels.items():
        assert kernel["spilled"] <= SPILLS.get((architecture, name), 0), f"{name} spills"
        assert kernel["shared"] <= SHARED, name
        assert kernel["load"] == wanted[name]["load"], name
        assert kernel["products"] == wanted[name]["products"], name
    # Registers are the compiler's choice: they are the same for the same compiler only.
    if found["nvcc"] == TABLE["nvcc"]:
        assert kernels == wanted


def test_the_table_has_every_architecture_and_its_rows_are_read_in_16_bytes():
    assert list(TABLE) == ["nvcc", *(f"sm_{architecture}" for architecture in ARCHITECTURES)]
    for architecture in ARCHITECTURES:
        for name, kernel in TABLE[f"sm_{architecture}"].items():
            if name.startswith("norm_") and "Mixed" not in name and "sum" not in name:
                assert kernel["load"] == 16, name


def test_the_table_has_attention_on_matrix_units():
    """Each architecture has one of two sorts of products; kernels of the other are empty there."""
    for architecture in ARCHITECTURES:
        depth = "8" if architecture == "75" else "16"
        for name, kernel in TABLE[f"sm_{architecture}"].items():
            if name.startswith("attention_"):
                used = f", {depth}, " in name
                assert ("HMMA" in kernel["products"]) == used, name
                assert kernel["load"] == (16 if used else 0), name


@pytest.mark.xdist_group("nvcc")
def test_the_library_registers_its_ops():
    """On a machine whose torch has CUDA: here a stub stands for libtorch_cuda.so."""
    folder = built(FIRST)
    names = [name for op in OPS for name in native_ops(op)]
    code = f"""
import ctypes, torch
import bigfast.ops
ctypes.CDLL({str(folder / "stub" / "libtorch_cuda.so")!r}, mode=ctypes.RTLD_GLOBAL)
torch.ops.load_library({str(folder / "_cuda.so")!r})
for name in {names}:
    assert "CUDA: registered at" in torch._C._dispatch_dump("bigfast::" + name), name
    assert "csrc/torch" in torch._C._dispatch_dump("bigfast::" + name).split("CUDA: ")[1], name
runtime, driver = torch.ops.bigfast.cuda_versions()
assert runtime >= 12000
"""
    assert names
    subprocess.run([sys.executable, "-c", code], check=True)
