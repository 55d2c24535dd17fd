"""Do the tests notice a broken kernel? Breaks each kernel on purpose and runs its tests.

    python tests/mutate.py                  every mutant; hours: for the night
    python tests/mutate.py attention        of one op
    python tests/mutate.py --only csrc/cpu  of C++, `csrc/cuda`: of CUDA, or `kernels`: of Triton

A mutant is one line of tests/mutants/<op>.toml: a text that stands once in a file of the kernel,
and what is put in its place. It is killed where a test of the op fails, and survives where none
does. Works in a copy of the tree; the exit code is the number of survivors.
"""

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(__file__).parent / "mutants"
KINDS = ("mask", "scale", "bound", "seed", "stride", "order", "rounding", "barrier")
CUDA = ("csrc/cuda/", "csrc/torch/cuda/")  # what the emulator is built of
LIMIT = 600  # seconds of a processor's time; a mutant that hangs the tests is killed
WAIT = 3600  # seconds by the clock, for those that hang without a processor's help


class Mutant(NamedTuple):
    op: str
    kind: str
    file: str
    find: str
    put: str

    def __str__(self) -> str:
        return f"{self.op}, {self.kind}, {self.file}: {self.find!r} -> {self.put!r}"


def mutants(op: str | None = None) -> list[Mutant]:
    """All mutants, or those of one op."""
    found = []
    for path in sorted(FOLDER.glob(f"{op or '*'}.toml")):
        for file, lines in tomllib.loads(path.read_text()).items():
            found += [Mutant(path.stem, kind, file, find, put) for kind, find, put in lines]
    return found


def copy_tree(to: Path) -> None:
    """The files that git knows, and the built libraries; kernels and benchmarks inside the package,
    as they are when it is installed."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
        check=True,
    ).stdout.split()  # fmt: skip
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, to / name)
    for library in (ROOT / "bigfast").glob("*.so"):
        shutil.copy(library, to / "bigfast")
    for part in ("kernels", "benchmarks"):  # an editable install's package says where they are
        shutil.rmtree(to / "bigfast" / part, ignore_errors=True)
        (to / "bigfast" / part).symlink_to(to / part)


def build(tree: Path, file: str) -> bool:
    """The C++ libraries of the copy that `file` is in, or, for CUDA's, the emulator's, where the
    tests look for it; only what has changed. False where it does not compile."""
    run = lambda *words: subprocess.run(words, cwd=tree, capture_output=True, check=False)
    cuda = file.startswith(CUDA)
    folder = tree / "build" / ("simt" if cuda else "mutants")
    if not folder.exists():
        python = f"-DPython_EXECUTABLE={sys.executable}"
        run("cmake", "-G", "Ninja", "-B", str(folder), python).check_returncode()
    targets = ("--target", "_emulator") if cuda else ()
    return run("cmake", "--build", str(folder), *targets).returncode == 0


def _mutated(tree: Path, mutant: Mutant) -> str:
    text = (tree / mutant.file).read_text()
    assert text.count(mutant.find) == 1, f"stands {text.count(mutant.find)} times: {mutant}"
    return text.replace(mutant.find, mutant.put)


def survives(tree: Path, mutant: Mutant) -> tuple[bool, str]:
    """Whether the op's tests pass with the mutant in place, and what they said."""
    path = tree / mutant.file
    text = path.read_text()
    path.write_text(_mutated(tree, mutant))
    native = mutant.file.startswith("csrc/")
    cuda = mutant.file.startswith(CUDA)
    try:
        if native and not build(tree, mutant.file):
            return True, "does not compile, so nothing was tested"
        if cuda:  # under AddressSanitizer and with the log of accesses, too
            stems = [path.stem for path in (tree / "tests/simt/kernels").glob("*.cpp")]
            own = [f" or (kernels_stay and {stem})" for stem in stems if stem in mutant.op]
            return _tests_pass(tree, mutant.op, "emulator" + "".join(own), "tests/simt")
        return _tests_pass(tree, mutant.op, "not triton and not emulator" if native else "triton")
    finally:
        path.write_text(text)


def _tests_pass(tree: Path, op: str, which: str, *more: str) -> tuple[bool, str]:
    files = sorted(str(p.relative_to(tree)) for p in (tree / "tests/ops").glob(f"test_{op}*.py"))
    command = [
        sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-k",
        which, *files, *more,
    ]  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=tree, env=env, capture_output=True, text=True, timeout=WAIT, check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 10)),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, f"hangs for {WAIT} s"
    if done.returncode == -signal.SIGXCPU:
        return False, f"computes for {LIMIT} s"
    if done.returncode == 1:
        failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
        return False, failed[0].split("::", 1)[-1] if failed else "failed"
    if done.returncode < 0:
        return False, f"crashed by signal {-done.returncode}"
    if done.returncode:
        raise RuntimeError(f"no test could run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return True, "all tests pass"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ops", nargs="*", metavar="OP", help="default: every op")
    parser.add_argument("--only", default="", metavar="FOLDER", help="csrc/cpu, csrc/cuda, kernels")
    chosen = parser.parse_args()
    every = []
    for op in chosen.ops or [None]:
        found = [m for m in mutants(op) if m.file.startswith(chosen.only)]
        if not found:
            parser.error(f"there are no mutants of {op or 'any op'} in {chosen.only or 'any file'}")
        every += found
    for mutant in every:  # before anything is built
        _mutated(ROOT, mutant)
    survivors = []
    with tempfile.TemporaryDirectory(prefix="mutants") as folder:
        tree = Path(folder) / "tree"
        copy_tree(tree)
        for folder in ("csrc/cpu/", "csrc/cuda/"):
            if any(m.file.startswith(folder) for m in every):
                print(f"building {folder}, which mutants are made of", flush=True)
                assert build(tree, folder), "the tree as it is does not build"
        for i, mutant in enumerate(every, 1):
            begin = time.perf_counter()
            survived, why = survives(tree, mutant)
            if survived:
                survivors.append(mutant)
            took = f"{time.perf_counter() - begin:.0f} s"
            word = "SURVIVED" if survived else "killed"
            print(f"{i}/{len(every)}  {word}, {took}: {mutant}\n      {why}", flush=True)
    print(f"{len(survivors)} of {len(every)} mutants survived", *survivors, sep="\n  ")
    return min(len(survivors), 100)


if __name__ == "__main__":
    sys.exit(main())
