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
# What a block may have on the least of these GPUs, sm_120.
SHARED = 99 * 1024


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiles_as_the_table_says(architecture):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, HERE / "compile.py", architecture.removeprefix("sm_")],
        check=False, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found[architecture].keys() == TABLE[architecture].keys()
    for name, kernel in found[architecture].items():
        assert kernel["spilled"] == 0, f"{name} spills"
        assert kernel["shared"] <= SHARED, f"{name} needs more shared memory than a block may have"
        assert kernel["load"] == TABLE[architecture][name]["load"], name
    # Registers are the compiler's choice: they are the same for the same compiler only.
    if found["triton"] == TABLE["triton"]:
        assert found == {key: TABLE[key] for key in found}


def test_the_compiled_rung_is_ticked_where_the_table_has_kernels():
    ticked = {op for op, evidence in EVIDENCE.items() if "compiled" in evidence.rungs}
    for architecture in ARCHITECTURES:
        assert {name.split()[0] for name in TABLE[architecture]} == ticked
