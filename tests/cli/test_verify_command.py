"""bigfast verify: folders, classes and hub ids; a report, a picture and an exit code."""

import json

import pytest
import torch

from bigfast.cli import verify

transformers = pytest.importorskip("transformers")
SIZES = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny BERT that transformers saved."""
    folder = tmp_path_factory.mktemp("stock")
    torch.manual_seed(0)
    transformers.BertForMaskedLM(transformers.BertConfig(**SIZES)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def with_tokenizer(tmp_path_factory):
    """A tiny classifier with a vocabulary of letters."""
    folder = tmp_path_factory.mktemp("classifier")
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES))
    model.save_pretrained(folder)
    return folder


def test_report_and_picture(bigfast, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = bigfast("verify", folder, "--steps", 2)
    assert code == 0, out
    assert f"{folder.name}: BertForMaskedLM, fp32" in out
    assert "within the policy" in out and "truth: stock in fp64" in out
    assert "stock, sdpa, by length" in out and "MB beyond the weights" in out
    assert "random ids" in err and "truth: outputs" in err
    picture = (tmp_path / f"verify-{folder.name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
    assert b"\x00\x00\x06\x40\x00\x00\x03\x84" in picture[:32]  # 1600 x 900


def test_real_sentences(bigfast, with_tokenizer, tmp_path, monkeypatch):
    from bigfast.hf import examples

    seen = []
    kept = examples.text_inputs
    monkeypatch.setattr(
        examples, "text_inputs", lambda m, t, texts, length: seen.append(texts) or kept(m, t, texts)
    )
    quick = ("--steps", 1, "--png", "none")
    assert bigfast("verify", with_tokenizer, *quick).code == 0
    assert seen[0] == examples.sentences()[:16]
    data = tmp_path / "mine.jsonl"
    data.write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(9)))
    assert bigfast("verify", with_tokenizer, "--data", data, "--batch", 4, *quick).code == 0
    assert seen[1] == ["text 0", "text 1", "text 2", "text 3"]
    data.write_text('{"sentence": "x"}\n')
    outcome = bigfast("verify", with_tokenizer, "--data", data, *quick)
    assert outcome.code == 2 and "mine.jsonl:1: no text under 'text'" in outcome.err


def test_a_class_with_random_weights(bigfast, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_to_verify.py").write_text(
        "import transformers\n\n"
        f"class Config(transformers.BertConfig):\n"
        f"    def __init__(self, **values):\n        super().__init__(**({SIZES} | values))\n\n"
        "class BertForMine(transformers.BertForMaskedLM):\n    config_class = Config\n\n"
        "class Plain:\n    pass\n"
    )
    quick = ("--steps", 1, "--png", "none")
    outcome = bigfast("verify", "mine_to_verify:BertForMine", *quick)
    assert outcome.code == 0, outcome.err
    assert "mine_to_verify:BertForMine" in outcome.out
    outcome = bigfast("verify", "mine_to_verify:Plain", *quick)
    assert outcome.code == 2 and "bigfast.verify(model, batch)" in outcome.err
    assert "no_such_module" in bigfast("verify", "no_such_module:Class").err


def test_what_does_not_hold_exits_with_1(bigfast, folder, monkeypatch):
    from bigfast import hf

    class Report:
        ok, swapped, model = False, "all", "BertForMaskedLM"
        __str__ = lambda self: "NOT WITHIN THE POLICY"

    seen = {}

    def fake(model, batch, steps, tell):
        autocast = torch.is_autocast_enabled("cpu")
        seen.update(dtype=model.dtype, autocast=autocast, steps=steps, rows=len(batch["labels"]))
        return Report()

    monkeypatch.setattr(hf, "verify", fake)
    arguments = ("verify", folder, "--png", "none", "--dtype")
    assert bigfast(*arguments, "bf16-autocast").code == 1
    assert seen == {"dtype": torch.float32, "autocast": True, "steps": 20, "rows": 16}
    assert bigfast(*arguments, "bf16", "--steps", 3, "--batch", 2).code == 1
    assert seen == {"dtype": torch.bfloat16, "autocast": False, "steps": 3, "rows": 2}


def test_mistakes(bigfast, folder, tmp_path):
    outcome = bigfast("verify", tmp_path)
    assert outcome.code == 2
    assert "holds no model" in outcome.err
    assert bigfast("verify", folder, "--dtype", "int8").code == 2
    assert "--steps must be at least 1, got 0" in bigfast("verify", folder, "--steps", 0).err
    assert "does not end in .png" in bigfast("verify", folder, "--png", "x.jpg").err
    outcome = bigfast("verify", "someone/some-model-that-is-not-here")
    assert outcome.code == 2 and "hf download someone/some-model" in outcome.err
    outcome = bigfast("verify", folder, "--data", tmp_path / "no.jsonl")
    assert "--data needs a tokenizer" in outcome.err
    (tmp_path / "config.json").write_text('{"architectures": ["NoSuchModel"]}')
    with pytest.raises(ValueError, match="transformers has no class 'NoSuchModel'"):
        verify.run([str(tmp_path)])
