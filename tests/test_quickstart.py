"""The quickstart: its baselines against hand counts, its text, and a miniature run end to end."""

import json
import lzma
import math
import re
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
import torch

from bigfast.cli import main
from bigfast.data import Document, Example
from bigfast.quickstart.baselines import bag_of_words, majority
from bigfast.quickstart.compression import ByteNgram, xz_bits_per_byte
from bigfast.quickstart.corpus import read_text
from bigfast.quickstart.plan import QuickstartConfig, make_plan
from bigfast.quickstart.results import FRESH, MAJORITY, PRETRAINED, Classification, Scores

TEXT = b"the cat sat on the mat; the other cat sat on the other mat. \xff\x00 the end"


# --- bits per byte --------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("context", [b"", b"t", b"the ", b"cat sat on", b"\x00\x01", b"\xff"])
def test_ngram_probabilities_sum_to_one(order, context):
    distribution = ByteNgram(TEXT, order).distribution(context)
    assert distribution.shape == (256,) and (distribution > 0).all()
    assert math.isclose(distribution.sum(), 1, abs_tol=1e-12)


def counted_by_hand(text: bytes, order: int, held_out: bytes) -> float:
    """Witten-Bell as the formula says it, with one Counter per order."""
    starts = range(len(text) - order + 1)
    counts = [Counter(text[i : i + k] for i in starts) for k in range(order + 1)]

    def probability(context: bytes, byte: bytes) -> float:
        shorter = probability(context[1:], byte) if context else 1 / 256
        total = counts[len(context)][context]
        if not total:
            return shorter
        kinds = sum(gram[:-1] == context for gram in counts[len(context) + 1])
        return (counts[len(context) + 1][context + byte] + kinds * shorter) / (total + kinds)

    bits = 0.0
    for i in range(len(held_out)):
        bits -= math.log2(probability(held_out[max(0, i - order + 1) : i], held_out[i : i + 1]))
    return bits / len(held_out)


@pytest.mark.parametrize("order", [1, 3, 5])
@pytest.mark.parametrize("held_out", [b"the mat sat on the cat", b"zebra \xfe", b"t"])
def test_ngram_is_witten_bell(order, held_out):
    expected = counted_by_hand(TEXT, order, held_out)
    assert math.isclose(ByteNgram(TEXT, order).bits_per_byte(held_out), expected, rel_tol=1e-9)


def test_ngram_scores_are_its_distribution():
    model = ByteNgram(TEXT, 4)
    held_out = b"the cat ate"
    bits = [-np.log2(model.distribution(held_out[:i])[held_out[i]]) for i in range(len(held_out))]
    assert math.isclose(model.bits_per_byte(held_out), np.mean(bits), rel_tol=1e-12)


def test_ngram_bad_arguments():
    with pytest.raises(ValueError, match="order: expected 1 to 8, got 9"):
        ByteNgram(TEXT, 9)
    with pytest.raises(ValueError, match="text: expected 5 bytes or more, got 3"):
        ByteNgram(b"abc")


def test_xz_is_what_the_program_writes():
    text = TEXT * 40
    packed = lzma.compress(text, preset=9)
    assert lzma.decompress(packed) == text
    assert xz_bits_per_byte(text) == 8 * len(packed) / len(text) < 1


# --- classification -------------------------------------------------------------------------------


def test_majority_scores():
    train = [Example("a", "b", label) for label in (0, 1, 1)]
    test = [Example("a", "b", label) for label in (0, 0, 0, 1)]
    assert asdict(majority(train, test)) == {
        "accuracy": 0.25,
        "precision": 0.125,
        "recall": 0.5,
        "f1": pytest.approx(0.2),  # of class 1: 2 * 0.25 * 1 / 1.25 = 0.4; of class 0: 0
    }


def test_bag_of_words_learns_words_of_either_side():
    data = [Example("red sky", "one two", 1), Example("blue sky", "one three", 0)] * 10
    assert bag_of_words(data, data).f1 == 1.0
    data = [Example("sky", "one two", 1), Example("sky", "one three", 0)] * 10
    assert bag_of_words(data, data).f1 == 1.0


def test_spread_is_best_minus_worst():
    scores = {PRETRAINED: [Scores(0, 0, 0, f1) for f1 in (0.7, 0.8, 0.75)]}
    c = Classification("?", 1, 1, 1, 1.0, scores)
    assert c.mean_f1(PRETRAINED) == pytest.approx(0.75)
    assert c.spread(PRETRAINED) == pytest.approx(0.1)


# --- text -----------------------------------------------------------------------------------------


def story(name: str, sentences: int = 400) -> Document:
    words = [
        "river",
        "hill",
        "stone",
        "house",
        "light",
        "water",
        "bread",
        "garden",
        "window",
        "oak",
    ]
    lines = [
        f"The {words[i % 10]} number {name}{i} lay beside a {words[(i * i + 3) % 10]}."
        for i in range(sentences)
    ]
    return Document(f"{name}.txt", "\n".join(lines) + "\n")


def test_users_text_is_divided_before_anything_is_made_of_it(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(story("xyz"[number], 4000).text)
    text = read_text(str(tmp_path), make_plan(0.1), seed=0)
    held_out = {line for document in text.held_out for line in document.text.splitlines()}
    train = {line for document in text.train for line in document.text.splitlines()}
    assert held_out and not held_out & train
    assert not any(
        line in train
        for example in text.test_examples
        for line in f"{example.text}\n{example.pair}".splitlines()
    )
    assert len(text.prompts) == 3


def test_too_little_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text(story("a", 30).text)
    with pytest.raises(ValueError, match=r"text: .* holds too little text: .* labelled pairs"):
        read_text(str(tmp_path), make_plan(1), seed=0)


def test_plan_scales_training_with_the_minutes():
    short, long = make_plan(2), make_plan(20)
    for name in ("bert_minutes", "finetune_minutes", "gpt_minutes"):
        assert getattr(long, name) == pytest.approx(10 * getattr(short, name))


@pytest.mark.parametrize("field, value", [("minutes", 0), ("minutes", -1), ("seed", -1)])
def test_bad_settings_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} must be .* got {value}"):
        QuickstartConfig(**{field: value})


# --- a miniature run ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    arguments = ["quickstart", "--minutes", "0.1", "--seed", "7", "--output_dir", str(folder)]
    assert main([*arguments, "--debug"]) == 0
    return folder


def test_report_stands_alone_and_tells_the_numbers(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    results = json.loads((finished / "results.json").read_text())
    assert "http:" not in page and "https:" not in page
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert len(sources) == 5 and all(s.startswith("data:image/png;base64,") for s in sources)
    assert "[figure" not in page
    shown = re.sub(r"<[^>]+>", " ", page)
    for runs in results["classification"]["scores"].values():
        for name in ("accuracy", "precision", "recall", "f1"):
            values = [run[name] for run in runs]
            assert f"{sum(values) / len(values):.3f}" in shown
    for name in ("gpt", "ngram", "xz"):
        assert f"{results['compression'][name]:.3f}" in shown
    for kind in ("stock", "swapped"):
        assert f"{results['swap']['losses'][kind][-1]:.6f}" in shown
    assert results["environment"]["versions"]["torch"] in shown


def test_results_are_consistent(finished):
    results = json.loads((finished / "results.json").read_text())
    scores = results["classification"]["scores"]
    assert [len(runs) for runs in scores.values()] == [1, 1, 3, 3]
    assert scores[MAJORITY][0]["f1"] == pytest.approx(1 / 3, abs=0.01)
    assert all(
        0 <= value <= 1 for runs in scores.values() for run in runs for value in run.values()
    )
    assert all(0 < results["compression"][name] < 9 for name in ("gpt", "ngram", "xz"))
    assert results["swap"]["excess"] <= 1
    assert results["seconds"] >= sum(results["stages"].values())
    for run in ("bert", "gpt"):
        assert results[run]["log"][-1]["step"] == results[run]["steps"] > 0
    assert FRESH in scores and len(results["samples"]) == 3


def test_models_load_in_transformers(finished):
    import transformers

    classes = {
        "bert": transformers.BertForPreTraining,
        "classifier": transformers.BertForSequenceClassification,
        "gpt": transformers.GPT2LMHeadModel,
    }
    for name, cls in classes.items():
        model, info = cls.from_pretrained(finished / name, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        tokenizer = transformers.AutoTokenizer.from_pretrained(finished / name)
        with torch.no_grad():
            output = model(**tokenizer("def main(): pass", return_tensors="pt"))
        assert next(iter(output.values())).isfinite().all()


def test_a_folder_in_use_is_refused(finished, capsys):
    assert main(["quickstart", "--output_dir", str(finished)]) == 2
    assert "is not empty" in capsys.readouterr().err
