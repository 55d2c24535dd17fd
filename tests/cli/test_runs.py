"""From text to a trained model and its metrics, through the commands."""

import json
from pathlib import Path

import pytest
import yaml
from arguments import FAST, pretrain
from safetensors.torch import load_file


def rows(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["type"] == "train"]


def metric(out, name):
    return float(out.split(name)[1].split()[0])


@pytest.mark.parametrize("task", ["mlm", "mlm+nsp", "clm"])
def test_pretrain_then_evaluate(bigfast, runs, task, tmp_path):
    folder = runs(task)
    last = rows(folder)[-1]
    assert last["step"] == 4
    assert (folder / "checkpoint-4" / "tokenizer.json").is_file()
    assert yaml.safe_load((folder / "config.yaml").read_text())["task"] == task
    code, out, _ = bigfast("evaluate", folder, "--output_dir", tmp_path)
    assert code == 0
    assert metric(out, "val_loss") == pytest.approx(last["val_loss"], abs=1e-3)
    saved = json.loads((tmp_path / "eval.json").read_text())
    assert saved["task"] == task
    assert saved["val_loss"] == pytest.approx(last["val_loss"], rel=1e-4)


def test_evaluate_other_text(bigfast, runs, corpus, tmp_path):
    text = tmp_path / "other.txt"
    text.write_text("the cat sat on a mat.\n" * 20)
    code, out, _ = bigfast("evaluate", runs("clm"), "--data", text, "--max_eval_samples", 5)
    assert code == 0
    assert metric(out, "bits_per_byte") > 0
    code, out, _ = bigfast("evaluate", runs("mlm+nsp"), "--data", corpus, "--length", 16)
    assert code == 0
    assert 0 <= metric(out, "nsp_accuracy") <= 1


def test_generate(bigfast, runs):
    arguments = ["generate", runs("clm"), "--prompt", "the cat", "--max_new_tokens", 20]
    first, second = bigfast(*arguments), bigfast(*arguments)
    assert first == second
    assert first.code == 0
    assert first.out.startswith("the cat")
    drawn = bigfast(*arguments, "--temperature", 0.7, "--top_k", 5, "--top_p", 0.9, "--seed", 3)
    assert drawn.code == 0
    twice = bigfast(*arguments, "--no-do_sample", "--num_return_sequences", 2)
    texts = twice.out.split("-" * 40 + "\n")
    assert len(texts) == 2
    assert texts[0] == texts[1]


def test_resume_is_bitwise(bigfast, corpus, runs, tmp_path):
    """Two steps and two more, through the commands, are the four steps of `runs`."""
    folder = tmp_path / "run"
    save = ["--train.save_steps=2", "--train.save_total_limit=2"]
    assert bigfast(*pretrain("clm", corpus, folder, *save)).code == 0
    whole = load_file(folder / "checkpoint-4" / "model.safetensors")
    for path in sorted((folder / "checkpoint-4").iterdir()):
        path.unlink()
    (folder / "checkpoint-4").rmdir()
    assert bigfast("pretrain", "--config", folder / "config.yaml", "--resume").code == 0
    resumed = load_file(folder / "checkpoint-4" / "model.safetensors")
    assert all(whole[name].equal(resumed[name]) for name in whole)
    straight = load_file(runs("clm") / "checkpoint-4" / "model.safetensors")
    assert all(whole[name].equal(straight[name]) for name in whole)


def test_a_run_is_not_overwritten(bigfast, corpus, runs):
    folder = runs("clm")
    before = (folder / "config.yaml").read_text()
    outcome = bigfast(*pretrain("clm", corpus, folder, "--train.seed=1"))
    assert outcome.code == 2
    assert "holds a run: --resume continues it" in outcome.err
    assert (folder / "config.yaml").read_text() == before


def test_data_then_pretrain(bigfast, corpus, tmp_path):
    folder = tmp_path / "data"
    arguments = ["data", "--task", "mlm", "--path", corpus, "--vocab_size=70"]
    code, _, err = bigfast(*arguments, "--output_dir", folder)
    assert code == 0
    assert "vocabulary 70;" in err
    assert yaml.safe_load((folder / "config.yaml").read_text())["vocab_size"] == 70
    run = pretrain("mlm", corpus, tmp_path / "run", steps=1)
    at = run.index("--data.path")
    run[at : at + 2] = ["--data.dir", folder]
    assert bigfast(*run).code == 0
    assert not (tmp_path / "run" / "data").exists()
    assert bigfast("evaluate", tmp_path / "run").code == 0


def test_epochs(bigfast, corpus, tmp_path):
    run = pretrain("clm", corpus, tmp_path / "run", "--train.num_train_epochs=0.02")
    run.remove("--train.max_steps=4")
    assert bigfast(*run).code == 0
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]
    assert saved["max_steps"] == rows(tmp_path / "run")[-1]["step"]
    assert saved["num_train_epochs"] is None


def finetune(runs, labelled, output_dir, *more):
    return [
        "finetune", "--model_name_or_path", runs("mlm+nsp"), "--data.train_file", labelled,
        "--output_dir", output_dir, "--classify.max_seq_length=16", *FAST, *more,
    ]  # fmt: skip


def test_finetune_then_evaluate(bigfast, runs, labelled, tmp_path):
    folder = tmp_path / "classifier"
    code, out, err = bigfast(*finetune(runs, labelled, folder, "--train.num_train_epochs=1"))
    assert code == 0
    assert "bigfast: note: " in err  # the head of pretraining is dropped, the classifier is new
    assert "confusion" in out
    assert metric(out, "f1") >= 0
    checkpoint = Path(out.split("saved in ")[1].splitlines()[0])
    names = json.loads((checkpoint / "config.json").read_text())["id2label"]
    assert names == {"0": "cat", "1": "other"}
    accuracy = metric(out, "accuracy")
    code, out, _ = bigfast("evaluate", folder)
    assert code == 0
    assert metric(out, "accuracy") == pytest.approx(accuracy, abs=1e-4)
    code, out, _ = bigfast("evaluate", folder, "--data", labelled)
    assert code == 0
    wrong = tmp_path / "wrong.tsv"
    wrong.write_text("a cat\tdog\n")
    outcome = bigfast("evaluate", folder, "--data", wrong)
    assert outcome.code == 2
    assert "label 'dog' is none of" in outcome.err


@pytest.mark.realdata
def test_finetune_on_film_reviews(bigfast, runs, realdata, tmp_path):
    few = (realdata / "sst2" / "train.tsv").read_text().splitlines()[:64]
    (tmp_path / "train.tsv").write_text("\n".join(few) + "\n")
    folder = tmp_path / "classifier"
    arguments = finetune(runs, tmp_path / "train.tsv", folder, "--train.max_steps=2")
    dev = realdata / "sst2" / "dev.tsv"
    code, out, _ = bigfast(*arguments, "--data.validation_file", dev)
    assert code == 0
    assert 0 <= metric(out, "accuracy") <= 1


def bad_pretrain(name, *more):
    return lambda runs, corpus, labelled, tmp: [*pretrain("clm", corpus, tmp / "r"), *more]


BAD = {
    "misspelt setting": (
        bad_pretrain("x", "--train.learning_rat=1"),
        "unknown setting --train.learning_rat; did you mean --train.learning_rate?",
    ),
    "wrong value": (
        bad_pretrain("x", "--train.learning_rate=-1"),
        "learning_rate must be positive",
    ),
    "wrong device": (bad_pretrain("x", "--device=gpu7"), "device: 'gpu7' is not there"),
    "two lengths": (bad_pretrain("x", "--train.num_train_epochs=1"), "exclude each other"),
    "positions": (bad_pretrain("x", "--model.n_positions=8"), "clm.block_size 16 is more than"),
    "heads": (bad_pretrain("x", "--model.n_head=3"), "must be a multiple of n_head 3"),
    "two kinds of data": (bad_pretrain("x", "--data.dir=d"), "give either data.dir"),
    "no such text": (
        lambda runs, corpus, labelled, tmp: pretrain("clm", tmp / "nothing", tmp / "r"),
        "nothing does not exist",
    ),
    "no task": (lambda runs, corpus, labelled, tmp: ["pretrain", "--output_dir", tmp], "task"),
    "unknown task": (
        lambda runs, corpus, labelled, tmp: ["pretrain", "--task", "nsp"],
        "'nsp' is none of mlm, mlm+nsp, clm",
    ),
    "no model": (
        lambda runs, corpus, labelled, tmp: ["evaluate", corpus],
        "holds no model (no config.json) and no checkpoint",
    ),
    "generate with BERT": (
        lambda runs, corpus, labelled, tmp: ["generate", runs("mlm")],
        "holds a 'bert' model",
    ),
    "too long": (
        lambda runs, corpus, labelled, tmp: ["evaluate", runs("clm"), "--length", 99],
        "length 99 is more than the model's 16 positions",
    ),
    "other tokenizer": (
        lambda runs, corpus, labelled, tmp: [
            "evaluate",
            runs("clm"),
            "--data",
            runs("mlm") / "data",
        ],
        "prepared with another tokenizer",
    ),
    "no labelled file": (
        lambda runs, corpus, labelled, tmp: finetune(runs, tmp / "no.tsv", tmp / "r"),
        "no.tsv does not exist",
    ),
    "long rows": (
        lambda runs, corpus, labelled, tmp: finetune(
            runs, labelled, tmp / "r", "--classify.max_seq_length=64"
        ),
        "classify.max_seq_length 64 is more than the model's 24 positions",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_one_line_and_exit_2(bigfast, runs, corpus, labelled, tmp_path, case):
    arguments, message = BAD[case]
    outcome = bigfast(*arguments(runs, corpus, labelled, tmp_path))
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.startswith("bigfast: ") or "\nbigfast: " in outcome.err
    assert "Traceback" not in outcome.err
