"""bigfast verify: a report and an exit code."""

import pytest
import torch

from bigfast.cli import verify


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny BERT that transformers saved."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("stock")
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    torch.manual_seed(0)
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    return folder


def test_report(bigfast, folder):
    code, out, err = bigfast("verify", folder, "--steps", 2)
    assert code == 0, out
    assert "BertForMaskedLM" in out
    assert "within the policy" in out
    assert "comparing" in err


def test_what_does_not_hold_exits_with_1(bigfast, folder, monkeypatch):
    from bigfast import hf

    class Report:
        ok, swapped = False, "all"
        __str__ = lambda self: "NOT WITHIN THE POLICY"

    seen = {}

    def fake(model, steps):
        seen.update(dtype=model.dtype, autocast=torch.is_autocast_enabled("cpu"), steps=steps)
        return Report()

    monkeypatch.setattr(hf, "verify", fake)
    assert bigfast("verify", folder, "--dtype", "bf16-autocast").code == 1
    assert seen == {"dtype": torch.float32, "autocast": True, "steps": 20}
    assert bigfast("verify", folder, "--dtype", "bf16", "--steps", 3).code == 1
    assert seen == {"dtype": torch.bfloat16, "autocast": False, "steps": 3}


def test_mistakes(bigfast, folder, tmp_path):
    outcome = bigfast("verify", tmp_path)
    assert outcome.code == 2
    assert "holds no model" in outcome.err
    assert bigfast("verify", folder, "--dtype", "int8").code == 2
    (tmp_path / "config.json").write_text('{"architectures": ["NoSuchModel"]}')
    with pytest.raises(ValueError, match="transformers has no class 'NoSuchModel'"):
        verify.run([str(tmp_path)])
