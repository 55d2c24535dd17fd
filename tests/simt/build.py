"""Builds what runs on the SIMT emulator, with CMake, when a test first asks for it."""

import fcntl
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "simt"


@cache
def built(target: str) -> Path:
    """The folder of `target`, up to date. One process builds, others wait for it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    tools = str(Path(sys.executable).parent)  # cmake and ninja of the virtual environment
    environment = os.environ | {"PATH": os.pathsep.join((tools, os.environ["PATH"]))}

    def run(*words: str) -> None:
        done = subprocess.run(
            words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (FOLDER / "build.ninja").exists():
            run(
                "cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(FOLDER),
                f"-DPython_EXECUTABLE={sys.executable}",
            )  # fmt: skip
        run("cmake", "--build", str(FOLDER), "--target", target)
    return FOLDER / "tests" / "simt"
