"""The command `bigfast`: one file per subcommand, imported when it is called.

Each such module has `run(arguments: list[str]) -> int | None`: it parses what follows its name and
returns the exit code. `bigfast --help` imports none of them, and no torch.

Exit codes: 0 done; 1 the run failed (a loss of NaN, a model that does not verify, a missing extra);
2 wrong usage (arguments, files, values); 130 Ctrl-C.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import warnings

from bigfast.version import __version__

COMMANDS = {
    "info": "who serves each op on each device, with which evidence, and why the others do not",
    "run": "run a script of yours with its transformers models swapped",
    "verify": "compare a Hugging Face model with its swapped self on this machine",
    "quickstart": "train a BERT and a GPT on real text and report (a few minutes)",
    "data": "turn text and JSONL into a tokenizer and token shards",
    "pretrain": "train a model from scratch: tasks mlm, mlm+nsp, clm",
    "finetune": "train a classifier on a pretrained BERT",
    "evaluate": "metrics of a trained model on held-out data",
    "generate": "continue a text with a trained GPT",
    "bench": "time the ops and models here beside torch, transformers and other rivals",
}

USAGE = """\
usage: bigfast [--help] [--version] COMMAND ... [--debug]

BERT- and GPT-class transformers that train and run faster in less memory.

{commands}

bigfast COMMAND --help tells the rest. --debug shows the traceback of an error.

example:
  bigfast pretrain --config examples/shakespeare_char.yaml \\
      --data.path input.txt --output_dir runs/shakespeare
  bigfast generate runs/shakespeare --prompt "ROMEO:"
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; `arguments` default to the process's own. Returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        table = "\n".join(f"  {name:<12}{what}" for name, what in COMMANDS.items())
        print(USAGE.format(commands=table), end="")
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    if arguments[0] not in COMMANDS:
        close = difflib.get_close_matches(arguments[0], COMMANDS, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
        return _fail(2, f"{arguments[0]!r} is no command; {hint}")
    try:
        return _run(arguments[0], arguments[1:])
    except SystemExit as exit:  # argparse, and a stopped training
        return exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except KeyboardInterrupt:
        return _fail(130, "interrupted")
    except BrokenPipeError:  # `bigfast info | head`; what is left to flush goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        code = _exit_code(error)
        if debug or code is None:
            raise
        return _fail(code, str(error) or type(error).__name__)


def _run(command: str, arguments: list[str]) -> int:
    with warnings.catch_warnings():
        warnings.showwarning = _note
        module = importlib.import_module(f"bigfast.cli.{command}")
        return module.run(arguments) or 0


def _note(message: Warning | str, *where: object, **more: object) -> None:
    """A warning as a line of its own, without the place in the source that it is from."""
    print(f"bigfast: note: {message}", file=sys.stderr)


def _exit_code(error: Exception) -> int | None:
    """2 for what the user can put right, 1 for what happened; None: a bug, with its traceback."""
    if isinstance(error, (ValueError, OSError)):
        return 2
    if isinstance(error, (ImportError, FloatingPointError)):
        return 1
    return None


def _fail(code: int, message: str) -> int:
    print(f"bigfast: {message}", file=sys.stderr)
    return code
