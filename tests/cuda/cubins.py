"""Builds bigfast/_cuda.so for GPUs that are not here, and prints what the compiler made of it.

    python tests/cuda/cubins.py 80 90a      a JSON table of these architectures
    python tests/cuda/cubins.py --write     all of them, into tests/cuda/table.json

The library is built by CMake for one architecture at a time, into build/cuda; cuobjdump, which the
package triton brings, reads its kernels.
"""

import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("table.json")
ARCHITECTURES = ("75", "80", "90a", "100a", "120")
# Bytes of a load from global memory, by a word of its name in SASS (LDG.E.128.CONSTANT); else 4.
BYTES = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}


def output(*words: str | Path) -> str:
    tools = str(Path(sys.executable).parent)  # cmake and ninja of the virtual environment
    path = os.pathsep.join((tools, os.environ["PATH"]))
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def built(architecture: str) -> Path:
    """The folder of the library for one architecture, up to date; stub/libtorch_cuda.so in it."""
    folder = ROOT / "build" / "cuda" / architecture
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "build.ninja").exists():
            output(
                "cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, "-DBIGFAST_BUILD_CUDA=1",
                f"-DBIGFAST_CUDA_ARCHITECTURES={architecture}-real", f"-DOUTPUT_DIR={folder}",
                f"-DPython_EXECUTABLE={sys.executable}",
            )  # fmt: skip
        output("cmake", "--build", folder, "--target", "_cuda")
    return folder


def dump(library: Path, what: str) -> str:
    from triton.knobs import nvidia

    return output(nvidia.cuobjdump.path, what, library)


def short(name: str) -> str:
    """norm_fwd_kernel<bf16, float, bf16> of a mangled name."""
    text = output("c++filt", name).strip().removeprefix("void ")
    plain = {"bigfast::cuda::": "", "(anonymous namespace)::": "", "(int)": "", "(bool)": ""}
    plain |= {"__nv_bfloat16": "bf16", "__half": "f16"}
    for long, word in plain.items():
        text = text.replace(long, word)
    return re.sub(r"\(.*\)$", "", text)


def measure(library: Path) -> dict[str, dict[str, int | str]]:
    """Registers and spilled bytes of a thread, static shared bytes of a block, the widest load in
    bytes, and which matrix instructions there are."""
    usage = re.findall(r"Function (\S+):\s+(.*)", dump(library, "--dump-resource-usage"))
    code = re.split(r"\bFunction : (\S+)", dump(library, "--dump-sass"))
    sass = dict(zip(code[1::2], code[2::2]))
    found = {}
    for name, line in usage:
        used = {key: int(n) for key, n in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", line)}
        words = [load.split(".") for load in re.findall(r"\bLDG[.\w]*", sass[name])]
        loads = [max((BYTES[w] for w in load if w in BYTES), default=4) for load in words]
        products = sorted(set(re.findall(r"\b[HIDQ]MMA\.\d+", sass[name])))
        found[short(name)] = {
            "registers": used["REG"],
            "spilled": used["STACK"] + used["LOCAL"],
            "shared": used["SHARED"],
            "load": max(loads, default=0),
            "products": " ".join(products),
        }
    return dict(sorted(found.items()))


def table(architectures: tuple[str, ...]) -> dict:
    version = re.search(r"release (\S+),", output("nvcc", "--version"))
    assert version
    measured = {f"sm_{a}": measure(built(a) / "_cuda.so") for a in architectures}
    return {"nvcc": version[1], **measured}


if __name__ == "__main__":
    write = sys.argv[1:] == ["--write"]
    text = json.dumps(table(ARCHITECTURES if write else tuple(sys.argv[1:])), indent=1)
    # One line per kernel.
    flat = lambda match: "{" + " ".join(match[1].split()) + "}"
    text = re.sub(r"\{([^{}]+)\}", flat, text)
    if write:
        TABLE.write_text(text + "\n")
    else:
        print(text)
