"""Every Triton kernel compiles for every GPU, with what the committed table says it needs.

The table is written by `python tests/aot/compile.py --write`.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bigfast.ops.evidence import EVIDENCE

HERE = Path(__file__).parent
TABLE = json.loads((HERE / "table.json").read_text())
ARCHITECTURES = [name for name in TABLE if name != "triton"]
# What a block may have.
SHARED = {"sm_80": 163, "sm_90": 227, "sm_100": 227, "sm_120": 99}
# The matrix instructions that carry each architecture's rate.
BEST = {"sm_80": "mma", "sm_90": "wgmma", "sm_100": "tcgen05", "sm_120": "mma"}


pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def run(script: str, *arguments: str) -> dict:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, HERE / script, *arguments],
        check=False, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiles_as_the_table_says(architecture):
    found = run("compile.py", architecture.removeprefix("sm_"))
    assert found[architecture].keys() == TABLE[architecture].keys()
    for name, kernel in found[architecture].items():
        if "products" in kernel:
            assert kernel["looped"] == 0, f"{name} spills in a loop"
            assert kernel["products"] == TABLE[architecture][name]["products"], name
        else:
            assert kernel["spilled"] == 0, f"{name} spills"
        most = SHARED[architecture] * 1024
        assert kernel["shared"] <= most, f"{name} needs more shared memory than a block may have"
        assert kernel["load"] == TABLE[architecture][name]["load"], name
    # Registers are the compiler's choice: they are the same for the same compiler only.
    if found["triton"] == TABLE["triton"]:
        assert found == {key: TABLE[key] for key in found}


def test_the_compiled_rung_is_ticked_where_the_table_has_kernels():
    ticked = {op for op, evidence in EVIDENCE.items() if "compiled" in evidence.rungs}
    for architecture in ARCHITECTURES:
        assert {name.split()[0] for name in TABLE[architecture]} == ticked


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_products_run_on_the_matrix_units(architecture):
    for name, kernel in TABLE[architecture].items():
        if name.startswith(("attention bf16 64", "attention fp16 64", "attention bf16 128")):
            assert kernel["products"].startswith(BEST[architecture]), name
        assert kernel.get("products") != "none", name
        assert ("described" in name) == (kernel.get("described", 0) > 0), name


def test_the_first_step_compiles_few_kernels():
    """A third of a second each: kernels/README.md has the time."""
    assert all(0 < model["kernels"] <= 30 for model in run("first_step.py", "--count").values())


@pytest.mark.parametrize("layout", ["dense", "packed", "rows"])
def test_batches_share_their_kernels(layout):
    """200 random batches, sequences of up to 2048 tokens, need at most 3 compilations of each
    kernel."""
    found = run("compilations.py", layout)
    assert found and {name: n for name, n in found.items() if n > 3} == {}
