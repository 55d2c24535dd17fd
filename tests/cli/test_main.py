"""The frame: help without torch, exit codes, errors of one line."""

import subprocess
import sys
import types

import pytest

from bigfast.cli import COMMANDS, main
from bigfast.version import __version__


def test_help_and_version_do_not_import_torch():
    code = (
        "import sys; from bigfast.cli import main; assert main(['--help']) == 0; "
        "assert main(['--version']) == 0; assert not {'torch', 'numpy'} & sys.modules.keys()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(f"  {command} " in result.stdout for command in COMMANDS)
    assert result.stdout.endswith(f"{__version__}\n")


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "quickstart"])
def test_each_command_has_a_help_with_an_example(bigfast, command):
    code, out, err = bigfast(command, "--help")
    assert (code, err) == (0, "")
    assert f"usage: bigfast {command}" in out
    assert "example:\n" in out
    assert f"bigfast {command} " in out.split("example:\n")[1]


def test_unknown_command(bigfast):
    assert bigfast("pretrian") == (
        2,
        "",
        "bigfast: 'pretrian' is no command; did you mean pretrain?\n",
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("block_size must be 2, got 1"), 2),
        (FileNotFoundError(2, "No such file", "x"), 2),
        (ModuleNotFoundError("pip install 'bigfast[data]'"), 1),
        (FloatingPointError("step 3: nan"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_are_one_line(bigfast, monkeypatch, error, code):
    def run(arguments):
        raise error

    monkeypatch.setitem(sys.modules, "bigfast.cli.info", types.SimpleNamespace(run=run))
    outcome = bigfast("info")
    assert outcome.code == code
    assert outcome.err.startswith("bigfast: ")
    assert outcome.err.count("\n") == 1


def test_debug_and_bugs_show_the_traceback(monkeypatch):
    def run(arguments):
        assert arguments == ["x"]
        raise ValueError("wrong") if arguments else RuntimeError

    monkeypatch.setitem(sys.modules, "bigfast.cli.info", types.SimpleNamespace(run=run))
    with pytest.raises(ValueError, match="wrong"):
        main(["info", "x", "--debug"])

    def bug(arguments):
        raise RuntimeError("a bug")

    monkeypatch.setitem(sys.modules, "bigfast.cli.info", types.SimpleNamespace(run=bug))
    with pytest.raises(RuntimeError, match="a bug"):
        main(["info"])


def test_exit_codes_of_commands(monkeypatch):
    for result, code in ((None, 0), (0, 0), (1, 1)):
        module = types.SimpleNamespace(run=lambda arguments, result=result: result)
        monkeypatch.setitem(sys.modules, "bigfast.cli.info", module)
        assert main(["info"]) == code
