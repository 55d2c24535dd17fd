"""examples/swap_*.py run, on tiny models that are made here."""

import importlib.util
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import bigfast
from bigfast.ops import library

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXTS = ["a film to remember", "dull , slow and far too long", "warm and funny", "a waste of time"]


@pytest.fixture(autouse=True)
def _swaps_without_kernels():
    with nullcontext() if library.NATIVE_MISSING is None else bigfast.backend("reference"):
        yield


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def save_tokenizer(folder):
    words = sorted({word for text in TEXTS for word in text.split()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate(special + words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.save_pretrained(folder)
    return len(vocabulary)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=save_tokenizer(folder), hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=32, max_position_embeddings=16,
        initializer_range=0.2,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_trainer(bert, tmp_path, capsys):
    rows = "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(TEXTS * 8))
    (tmp_path / "train.tsv").write_text(rows)
    files = ["--train", str(tmp_path / "train.tsv"), "--dev", str(tmp_path / "train.tsv")]
    common = ["--model", str(bert), *files, "--output_dir", str(tmp_path / "run")]
    metrics = example("swap_hf_trainer").main(
        [*common, "--epochs", "30", "--batch_size", "4", "--learning_rate", "3e-3"]
    )
    assert metrics["eval_accuracy"] == 1.0
    assert "attention  'bert.encoder.layer.0.attention.self' swapped" in capsys.readouterr().out
    saved = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    assert type(saved).__module__.startswith("transformers.")


def test_the_longer_run(bert, tmp_path, capsys, monkeypatch):
    """benchmarks/sst2.py, on next to nothing."""
    from bigfast.benchmarks import machine, sst2

    monkeypatch.setattr(machine, "peaks", lambda device: {})
    rows = "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(TEXTS * 8))
    (tmp_path / "rows.tsv").write_text(rows)
    file = str(tmp_path / "rows.tsv")
    result = sst2.main([file, file, "--model", str(bert), "--json", str(tmp_path / "x.json")])
    assert set(result["runs"]) == set(sst2.RUNS) and (tmp_path / "x.json").exists()
    assert "against stock's best" in capsys.readouterr().out


def test_peft(bert, capsys):
    pytest.importorskip("peft")
    losses = example("swap_peft").main(["--model", str(bert), "--steps", "8"])
    assert losses[-1] < losses[0]
    out = capsys.readouterr().out
    assert "unpad" in out and "merged: BertForSequenceClassification" in out


def test_sentence_transformers(bert, capsys):
    pytest.importorskip("sentence_transformers")
    vectors = example("swap_sentence_transformers").main(["--model", str(bert)])
    assert vectors.shape == (48, 16)
    said = [line for line in capsys.readouterr().out.splitlines() if "largest" in line]
    assert float(said[0].rpartition(" ")[2]) < 1e-5


def test_cross_encoder(bert):
    CrossEncoder = pytest.importorskip("sentence_transformers").CrossEncoder
    model = CrossEncoder(str(bert), num_labels=1, device="cpu")
    pairs = [(one, other) for one in TEXTS for other in TEXTS]
    want = model.predict(pairs, convert_to_tensor=True)
    report = bigfast.swap(model)
    assert report.swapped["attention"] and report.swapped["unpad"]
    torch.testing.assert_close(model.predict(pairs, convert_to_tensor=True), want)
    bigfast.restore(model)
    assert torch.equal(model.predict(pairs, convert_to_tensor=True), want)


def test_generate(tmp_path, capsys):
    torch.manual_seed(0)
    size = save_tokenizer(tmp_path)
    config = transformers.GPT2Config(
        vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=32, initializer_range=0.2,
        bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path)
    arguments = ["--model", str(tmp_path), "--max_new_tokens", "8"]
    prompts = ["--prompt", "a film", "--prompt", "dull , slow and"]
    for beams in ("1", "3"):
        texts = example("swap_generate").main([*arguments, *prompts, "--num_beams", beams])
        assert len(texts) == 2 and all(len(text.split()) > 4 for text in texts)
    assert "bigfast.swap: GPT2LMHeadModel" in capsys.readouterr().out
