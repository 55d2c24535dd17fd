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
    """Builds both libraries into bigfast/, and copies them into the wheel's bigfast/."""

    def get_source_files(self) -> list[str]:
        return []  # the sdist's list of sources is MANIFEST.in

    def run(self) -> None:
        package = ROOT / "bigfast"
        failure = package / "_build_failure.txt"
        failure.unlink(missing_ok=True)
        compilers = os.environ.get("CXX", "c++ g++ clang++").split()
        if any(map(shutil.which, compilers)):
            build = str(ROOT / "build" / "cpu")
            configure = ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", build]
            configure += [f"-DPython_EXECUTABLE={sys.executable}"]
            configure += [f"-DBIGFAST_BUILD_CUDA={os.environ.get('BIGFAST_BUILD_CUDA', '0')}"]
            subprocess.run(configure, check=True)
            subprocess.run(["cmake", "--build", build], check=True)
        else:
            # Everything still runs, on the reference implementations; the first use says so.
            failure.write_text("no C++ compiler was found when bigfast was installed")
            print("bigfast: no C++ compiler found; installing without native code", file=sys.stderr)
        if not self.inplace:
            for built in [*package.glob("*.so"), *package.glob(failure.name)]:
                shutil.copy2(built, Path(self.build_lib) / "bigfast")

    def get_outputs(self) -> list[str]:
        return []


mapped = {"bigfast.kernels": "kernels", "bigfast.benchmarks": "benchmarks"}
packages = find_packages(include=["bigfast", "bigfast.*"], exclude=[*mapped])
for name, folder in mapped.items():
    packages += [name] + [f"{name}.{sub}" for sub in find_packages(folder)]
setup(
    packages=packages,
    package_dir=mapped,
    package_data={
        "bigfast": ["*.so", "_build_failure.txt", "py.typed"],
        "bigfast.hf": ["sentences.jsonl"],
        "bigfast.kernels": ["README.md", "launch.json"],
    },
    ext_modules=[Extension("bigfast._data", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
