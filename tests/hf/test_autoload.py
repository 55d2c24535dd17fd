"""Swapped without a line in the script: BIGFAST_SWAP, `bigfast run`, the Trainer's callback."""

import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
import transformers
from berts import NO_DROPOUT, SIZES, batch, make
from transformers.utils import is_kernels_available

import bigfast
from bigfast import autoload
from bigfast.hf import SwapCallback, register_kernels
from bigfast.hf import kernels as hf_kernels
from bigfast.hf.swap import stock_class
from bigfast.ops import library

SCRIPT = """
import os, sys
{first}
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig, BertModel
from bigfast.hf.swap import stock_class
swapped = lambda model: sum(stock_class(m) is not None for m in model.modules())
made = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                            intermediate_size=8, max_position_embeddings=8))
made.save_pretrained(sys.argv[1])
loaded = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
print(swapped(made), swapped(loaded), os.environ.get("BIGFAST_SWAP"), __name__, sys.argv[2:])
"""


@pytest.fixture(autouse=True)
def _swaps_without_kernels():
    with nullcontext() if library.NATIVE_MISSING is None else bigfast.backend("reference"):
        yield


@pytest.fixture
def watched(monkeypatch):
    """PreTrainedModel as BIGFAST_SWAP leaves it, and stock again after the test."""
    base = transformers.PreTrainedModel
    for name in ("from_pretrained", "post_init"):
        monkeypatch.setattr(base, name, base.__dict__[name])
    monkeypatch.setattr(autoload, "_said", set())

    def watch(value):
        monkeypatch.setenv("BIGFAST_SWAP", value)
        autoload.start()

    yield watch
    if "_bigfast_watched" in base.__dict__:
        del base._bigfast_watched


def python(*arguments, folder, **variables):
    """stdout and stderr of a process of its own, where the entry point is installed."""
    environment = {k: v for k, v in os.environ.items() if k != "BIGFAST_SWAP"} | variables
    if library.NATIVE_MISSING is not None:
        environment["BIGFAST_BACKEND"] = "reference"
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=folder, env=environment,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_the_variable(tmp_path):
    """Where transformers is imported first, and torch in the middle of it."""
    (tmp_path / "script.py").write_text(SCRIPT.format(first=""))
    out, err = python("script.py", "saved", folder=tmp_path, BIGFAST_SWAP="1")
    made, loaded, variable, name, _ = out.split()
    assert int(made) > 4 and int(loaded) > 4 and (variable, name) == ("1", "__main__")
    assert (
        err.count("BertForSequenceClassification swapped: attention 1, norm 2, mlp 1, linear 8")
        == 1
    )


def test_run(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT.format(first="import torch"))
    command = "import sys; from bigfast.cli import main; sys.exit(main())"
    out, err = python(
        "-c", command, "run", "--fusions", "mlp,norm", "script.py", "saved", "--steps", "3",
        folder=tmp_path,
    )  # fmt: skip
    assert out == "3 3 mlp,norm __main__ ['--steps', '3']"
    assert "BertModel swapped: norm 2, mlp 1" in err


def test_run_says_what_is_wrong(monkeypatch, capsys, tmp_path):
    from bigfast.cli import main

    def fails(*arguments):
        assert main(["run", *arguments]) == 2
        return capsys.readouterr().err

    assert "no such file" in fails("no.py")
    assert "no option of run" in fails("--quick", "no.py")
    assert "needs the name of a module" in fails("-m")
    assert main(["run", "--help"]) == 0 and "BIGFAST_SWAP=1 torchrun" in capsys.readouterr().out
    monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    assert "keeps torch from calling bigfast" in fails("-m", "this")
    monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD")
    monkeypatch.setattr("bigfast.cli.run.entry_points", lambda group: [])
    assert "install it again" in fails("-m", "this")


def test_nothing_is_done_unasked(watched):
    before = transformers.PreTrainedModel.post_init
    watched("0")
    assert transformers.PreTrainedModel.post_init is before
    assert not any(stock_class(m) for m in make().modules())
    with pytest.raises(ValueError, match="BIGFAST_SWAP: 'all' is not one of 0, 1, attention"):
        watched("all")


def test_watched(watched, tmp_path, capsys):
    plain = make("BertForMaskedLM", **NO_DROPOUT)
    plain.save_pretrained(tmp_path)
    watched("attention,unpad")
    watched("attention,unpad")  # the second time changes nothing
    model, info = transformers.BertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and stock_class(model.bert) is transformers.BertModel
    assert stock_class(model) is None  # the loss was not asked for
    inputs = batch()
    real = inputs["attention_mask"].bool()
    got, want = (m.eval()(**inputs).logits[real] for m in (model, plain))
    torch.testing.assert_close(got, want)
    assert "BertForMaskedLM swapped: attention 2, unpad 1" in capsys.readouterr().err
    config = transformers.MambaConfig(hidden_size=8, num_hidden_layers=1, vocab_size=9)
    assert transformers.MambaModel(config).training is True
    assert "MambaModel stays stock" in capsys.readouterr().err


def test_the_callback(tmp_path):
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=4, report_to=[],
        learning_rate=1e-3, seed=1, logging_steps=1, save_strategy="no", use_cpu=True,
    )  # fmt: skip
    inputs = batch(size=16)
    rows = [{k: v[i] for k, v in inputs.items()} | {"labels": i % 2} for i in range(16)]
    losses = {}
    for name, callbacks in (("stock", []), ("swapped", [SwapCallback(norm=False)])):
        torch.manual_seed(5)
        model = transformers.BertForSequenceClassification(
            transformers.BertConfig(**SIZES, **NO_DROPOUT)
        )
        trainer = transformers.Trainer(model, arguments, train_dataset=rows, callbacks=callbacks)
        trainer.train()
        losses[name] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    report = callbacks[0].report
    assert report.swapped["attention"] and "norm" not in report.swapped
    assert stock_class(model.bert) is transformers.BertModel
    torch.testing.assert_close(losses["swapped"], losses["stock"], rtol=1e-4, atol=1e-4)


def test_use_kernels_needs_its_package(monkeypatch):
    monkeypatch.setattr(hf_kernels, "is_kernels_available", lambda: False)
    with pytest.raises(ModuleNotFoundError, match="needs the package kernels"):
        register_kernels()


# No test dependency: it brings some thirty packages with it.
@pytest.mark.skipif(not is_kernels_available(), reason="needs the package kernels, 0.16")
def test_use_kernels():
    register_kernels()
    sizes = {k: v for k, v in SIZES.items() if k != "initializer_range"}
    model = transformers.LlamaModel(transformers.LlamaConfig(**sizes)).eval()
    inputs = batch()
    want = model(**inputs).last_hidden_state
    model.set_use_kernels(True)
    with bigfast.ops.registry.watch() as chosen:
        got = model(**inputs).last_hidden_state
    assert [op for op, *_ in chosen].count("rms_norm") == 5
    torch.testing.assert_close(got, want)
