"""Calls CMake, the only build description, and maps kernels/ and benchmarks/ into the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


class CMakeBuild(build_ext):
    """Builds both libraries into bigfast/ (editable installs) or into the wheel's copy of it."""

    def get_source_files(self) -> list[str]:
        return []  # the sdist's list of sources is MANIFEST.in

    def run(self) -> None:
        package = (ROOT if self.inplace else Path(self.build_lib).resolve()) / "bigfast"
        package.mkdir(parents=True, exist_ok=True)
        failure = package / "_build_failure.txt"
        failure.unlink(missing_ok=True)
        compiler = os.environ.get("CXX") or next(
            filter(shutil.which, ("c++", "g++", "clang++", "cl")), None
        )
        if compiler is None or shutil.which(compiler.split()[0]) is None:
            # Everything still runs, on the reference implementations; the first use says so.
            failure.write_text("no C++ compiler was found when bigfast was installed")
            print("bigfast: no C++ compiler found; installing without native code", file=sys.stderr)
            return
        build = ROOT / "build" / ("cpu" if self.inplace else "wheel")
        subprocess.run(
            ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(build)]
            + ["-DCMAKE_BUILD_TYPE=Release", f"-DPython_EXECUTABLE={sys.executable}"]
            + [f"-DBIGFAST_OUTPUT_DIR={package}"],
            check=True,
        )
        subprocess.run(["cmake", "--build", str(build)], check=True)

    def get_outputs(self) -> list[str]:
        return []


mapped = {"bigfast.kernels": "kernels", "bigfast.benchmarks": "benchmarks"}
packages = find_packages(include=["bigfast", "bigfast.*"])
for name, folder in mapped.items():
    packages += [name] + [f"{name}.{sub}" for sub in find_packages(folder)]
setup(
    packages=packages,
    package_dir=mapped,
    package_data={"bigfast": ["*.so", "_build_failure.txt", "py.typed"]},
    ext_modules=[Extension("bigfast._data", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
