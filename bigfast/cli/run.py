"""`bigfast run`: a script as it is, with transformers' models swapped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

from bigfast.autoload import VARIABLE

GROUP = "torch.backends"
USAGE = """\
usage: bigfast run [--help] [--fusions NAMES] SCRIPT.py|-m MODULE [ARGUMENT ...]

Run a Python script or module as it is, with every transformers model that it makes swapped: the
same as BIGFAST_SWAP=1 python SCRIPT.py, and child processes inherit it. What is swapped, and what
is not, is said on stderr.

  --fusions NAMES   of attention,norm,mlp,linear,embeddings,loss,unpad; default: all

example:
  bigfast run run_glue.py --model_name_or_path bert-base-uncased --task_name sst2 ...
  bigfast run -m my_package.train
  BIGFAST_SWAP=1 torchrun --nproc_per_node 2 run_mlm.py ..."""


def run(arguments: Sequence[str]) -> int:
    arguments = list(arguments)
    fusions = "1"
    if arguments[:1] == ["--fusions"]:
        if len(arguments) < 2:
            raise ValueError("--fusions needs names")
        fusions, arguments = arguments[1], arguments[2:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] == "-m":
        if len(arguments) < 2:
            raise ValueError("-m needs the name of a module")
    elif arguments[0].startswith("-"):
        raise ValueError(f"{arguments[0]!r} is no option of run, which go before SCRIPT.py")
    elif not os.path.isfile(arguments[0]):
        raise ValueError(f"{arguments[0]}: no such file")
    _check_autoload()
    environment = os.environ | {VARIABLE: fusions}
    command = [sys.executable, *arguments]
    if os.name == "nt":  # where exec gives the prompt back before the script ends
        return subprocess.run(command, env=environment, check=False).returncode
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)


def _check_autoload() -> None:
    """ValueError where torch would not call us, and the script would run as stock."""
    if os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD") == "0":
        raise ValueError(
            "TORCH_DEVICE_BACKEND_AUTOLOAD=0 keeps torch from calling bigfast: unset it"
        )
    if not any(point.value == "bigfast.autoload:start" for point in entry_points(group=GROUP)):
        raise ValueError(f"bigfast is installed without its entry point {GROUP}: install it again")
