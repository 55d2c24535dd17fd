"""The emulator finds planted bugs, its matrix units are those of the PTX ISA, and the kernels of
csrc/cuda run on it under AddressSanitizer and with the access log."""

import os
import subprocess
from pathlib import Path

import pytest
from simt.build import built

# What is found in each kernel of planted.cpp, and in which builds: the plain one, the one with
# AddressSanitizer, the one that logs accesses.
PLANTED = {
    "missing_barrier": {
        "plain": "wrong results",
        "log": "read of what nobody has written: shared memory, byte 4 of 256, block 0,0 thread 0",
    },
    "missing_warp_barrier": {"log": "read without a barrier behind the write of thread 1"},
    "missing_second_barrier": {
        "plain": "wrong results",
        "log": "without a barrier behind the",
    },
    "missing_wait": {"plain": "wrong results"},
    "off_by_one_in_shared": {
        "plain": "written outside of an array of 256 bytes in shared memory",
        "asan": "index 64 out of bounds",
        "log": "access outside of an array in shared memory, block 0,0 thread 63",
    },
    "off_by_one_in_global": {"asan": "heap-buffer-overflow"},
    "misaligned_load": {"plain": "load_vec 16 bytes at an address that is no multiple of that"},
    "divergent_barrier": {
        "plain": "a barrier that not all threads reach: block 0,0 thread 0 waits at the block "
        "barrier of planted.cpp"
    },
    "divergent_shuffle": {"plain": "lanes of a warp diverge: block 0,0 thread 0 is in shuffle"},
}
KERNELS = sorted(path.stem for path in (Path(__file__).parent / "kernels").glob("*.cpp"))
CASES = [(name, way) for name, found in PLANTED.items() for way in found]


def run(program: str, *words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run(
        [built(program) / program, *words], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "way"), CASES)
def test_planted_bugs_are_found(name, way):
    right = run(f"planted_{way}", name)
    assert right.stdout == "right\n", right.stdout + right.stderr
    wrong = run(f"planted_{way}", name, "wrong")
    assert wrong.returncode != 0
    assert PLANTED[name][way] in wrong.stdout + wrong.stderr


@pytest.mark.parametrize("way", ["asan", "log"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_stay_in_bounds_and_do_not_race(kernel, way):
    done = run(f"{kernel}_{way}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("way", ["plain", "asan"])
def test_fragments_are_those_of_the_isa(way):
    done = run(f"fragment_table_{way}")
    assert done.stdout == "right\n", done.stdout + done.stderr
