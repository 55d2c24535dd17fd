"""What an installed package holds and what importing it costs."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def python(code: str, **kwargs) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, **kwargs
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_is_quiet_and_light(tmp_path):
    code = """
import sys, time
before = set(sys.modules)
start = time.perf_counter()
import bigfast, bigfast.autoload  # all that torch's own import brings with it
print(time.perf_counter() - start)
print(" ".join(sorted({m for m in set(sys.modules) - before if m.startswith("bigfast")})))
print([m for m in ("torch", "numpy", "transformers") if m in sys.modules])
"""
    seconds, modules, others = python(code, cwd=tmp_path).splitlines()
    assert modules == "bigfast bigfast.autoload bigfast.version" and others == "[]"
    assert float(seconds) < 1  # milliseconds; the bound only catches a forgotten import


def test_needs_torch_and_numpy_alone(tmp_path):
    """The ops, nn and models import without any extra."""
    code = """
import sys
for name in ("transformers", "tokenizers", "safetensors", "rich", "jsonargparse", "matplotlib"):
    sys.modules[name] = None
import bigfast.ops, bigfast.nn, bigfast.models, bigfast.optim, bigfast.data, bigfast.hf
"""
    python(code, cwd=tmp_path)


@pytest.mark.slow
def test_wheel_and_sdist(tmp_path):
    """Both hold what they must; the wheel runs from a folder of its own."""
    for kind in ("--wheel", "--sdist"):
        subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", "-q", kind, "-o", tmp_path, ROOT],
            check=True,
            capture_output=True,
        )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for part in ("bigfast/_cpu.so", "bigfast/benchmarks/timing.py", "bigfast/ops/layer_norm.py"):
        assert part in names
    assert not [n for n in names if n.startswith(("tests", "benchmarks", "kernels"))]
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {n.partition("/")[2] for n in archive.getnames()}
    for part in ("CMakeLists.txt", "csrc/cpu/norm.inl", "csrc/torch/tensor.h", "LICENSE"):
        assert part in files
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = f"""
import sys
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f)]
sys.path.insert(0, {str(site)!r})
import bigfast, bigfast.benchmarks, bigfast.kernels
from bigfast.ops import library
assert bigfast.__file__.startswith({str(site)!r}) and library.NATIVE_MISSING is None
"""
    python(code, cwd=tmp_path)


def test_installs_without_a_compiler(tmp_path):
    """The build leaves the reason behind, the first op prints it once with the cure."""
    package = tmp_path / "bigfast"
    subprocess.run(["cp", "-r", str(ROOT / "bigfast"), str(package)], check=True)
    for library in package.glob("*.so"):
        library.unlink()
    (package / "_build_failure.txt").write_text("no C++ compiler was found")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import torch, bigfast
from bigfast.ops import layer_norm
for _ in range(2):
    layer_norm(torch.ones(2, 4), torch.ones(4))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert result.stderr.count("\n") == 1
    assert "no C++ compiler was found; install a C++20 compiler" in result.stderr
