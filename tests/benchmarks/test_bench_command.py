"""bigfast bench: help, bad input, a result with its pictures, and the comparison of two."""

import copy
import json
import re

import pytest
from bigfast.benchmarks import models
from bigfast.benchmarks.rows import load
from bigfast.benchmarks.shapes import SWAPPED
from bigfast.benchmarks.shapes import tiny as tiny_shapes

from bigfast.cli import main


def bench(capsys, *arguments):
    capsys.readouterr()
    code = main(["bench", *map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("command", ["ops", "model", "swap", "compare"])
def test_help_suffices(capsys, command):
    code, out, err = bench(capsys, command, "--help")
    assert (code, err) == (0, "")
    assert f"bigfast bench {command} " in out.split("example:\n")[1]
    words = {"ops": ["layer_norm", "--quick"], "model": ["bert-large"], "swap": ["minilm"]}
    for word in words.get(command, []):
        assert word in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["ops", "tyni"],
            "op 'tyni' has no benchmark; did you mean tinier? there are tiny, tinier",
        ),
        (["ops", "--json", "tiny"], "--json: 'tiny' does not end in .json"),
        (["ops", "--device", "gpu0"], "device: 'gpu0' is not there"),
        (
            ["swap", "minilmm"],
            "swap of 'minilmm': did you mean minilm? there are minilm, bert-base, roberta-base",
        ),
        (["model", "bert-bsae"], "did you mean bert-base? there are bert-base, bert-large"),
        (["compare", "missing.json", "b.json"], "missing.json"),
    ],
)
def test_bad_input_is_named(capsys, tiny, arguments, message):
    code, _, err = bench(capsys, *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_a_plot_folder_that_is_a_file(capsys, tmp_path, tiny):
    (tmp_path / "file").touch()
    code, _, err = bench(capsys, "ops", "--plot", tmp_path / "file")
    assert code == 2
    assert "is a file; name a folder" in err


def test_folders_without_a_rival(capsys, tmp_path):
    assert bench(capsys, "model", tmp_path)[0] == 2
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    code, _, err = bench(capsys, "model", tmp_path)
    assert code == 2
    assert "model_type 't5' is not one of bert, gpt2" in err


def test_ops_end_to_end(capsys, tmp_path, tiny):
    file, pictures = tmp_path / "rows.json", tmp_path / "pictures"
    code, out, err = bench(capsys, "ops", "tiny", "--quick", "--json", file, "--plot", pictures)
    assert code == 0, err
    assert "Bytes: x is read and written." in out
    assert "other: no such kernel here" in out
    assert "tiny, 4 x 16, bfloat16" in err  # what is measured, while it is
    result = load(file)
    assert len(result["rows"]) == 2 * 3 * 3
    assert result["machine"]["versions"].keys() >= {"torch", "bigfast", "python"}
    names = {path.name for path in pictures.iterdir()}
    assert names >= {"bench.html", "roofline.png", "speedup_bf16.png", "speedup_fp32.png"}
    html = (pictures / "bench.html").read_text()
    assert html.count("<img") == len(names) - 1
    assert not re.search(r"(src|href)=[\"'](?!data:)", html)

    assert bench(capsys, "compare", file, file)[0] == 0


def test_json_alone_goes_to_stdout(capsys, tiny):
    code, out, err = bench(capsys, "ops", "tiny", "--quick", "--json")
    assert code == 0
    assert json.loads(out)["kind"] == "ops"
    assert "bigfast" in err


def test_a_wrong_kernel_gives_exit_code_1(capsys, monkeypatch, tiny):
    made = tiny.cases

    def cases():
        for case in made():
            case.ours = lambda x, p: x * 3
            yield case

    monkeypatch.setattr(tiny, "cases", cases)
    code, out, _ = bench(capsys, "ops", "tiny", "--quick")
    assert code == 1
    assert "wrong, so not timed" in out


def test_compare_tells_the_ratio_and_what_is_missing(capsys, tmp_path, tiny):
    file, other = tmp_path / "a.json", tmp_path / "b.json"
    bench(capsys, "ops", "tiny", "--quick", "--json", file)
    result = load(file)
    faster = copy.deepcopy(result)
    dropped = faster["rows"].pop(0)
    for row in faster["rows"]:
        if row["ms"] is not None:
            row |= {key: row[key] / 4 for key in ("ms", "p20_ms", "p80_ms")}
    faster["machine"]["cpu"] = "another"
    other.write_text(json.dumps(faster))
    code, out, _ = bench(capsys, "compare", file, other)
    assert (code, dropped["implementation"]) == (0, "bigfast")
    assert "4.00x" in out
    assert "different machines" in out
    assert "11 rows compared; rows in A alone: 1, in B alone: 0" in out


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_models_end_to_end(capsys, tmp_path, peaks, family):
    from transformers import BertConfig, GPT2Config

    small = {"vocab_size": 300, "num_hidden_layers": 1, "num_attention_heads": 2}
    if family == "bert":
        config = BertConfig(
            hidden_size=32, intermediate_size=64, max_position_embeddings=64, **small
        )
    else:
        config = GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2, n_positions=32)
    config.save_pretrained(tmp_path / "tiny-model")
    file, pictures = tmp_path / "rows.json", tmp_path / "pictures"
    code, _, err = bench(
        capsys, "model", tmp_path / "tiny-model", "--quick", "--json", file, "--plot", pictures
    )
    assert code == 0, err
    result = load(file)
    implementations = {row["implementation"] for row in result["rows"]}
    assert {"stock autocast", "bigfast bf16-autocast", "bigfast bf16-master"} <= implementations
    assert {row["op"] for row in result["rows"]} == {"tiny-model"}
    losses = [row["loss"] for row in result["rows"]]
    assert max(losses) - min(losses) < 0.02
    assert {entry["implementation"] for entry in result["breakdown"]} == implementations
    assert (pictures / "tiny-model_breakdown.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", SWAPPED)
def test_swaps_end_to_end(capsys, tmp_path, peaks, name):
    file = tmp_path / "swap.json"
    with tiny_shapes():
        code, out, err = bench(capsys, "swap", name, "--quick", "--json", file)
    assert code == 0, out + err
    rows = load(file)["rows"]
    assert {row["op"] for row in rows} == {f"swap of {name}"}
    assert all(row["ms"] is not None and row["against"] for row in rows), rows
    shapes = {row["shape"].partition(",")[0] for row in rows}
    if name == "bert-base":
        assert shapes == {"fine-tuning", "masked LM", "1 x 16"}
        assert {row["dtype"] for row in rows} == {"bfloat16", "float32"}
    steps = {row["implementation"] for row in rows if row["direction"] == "step"}
    assert {"bigfast swap, autocast", "bigfast swap, pure bf16"} <= steps
    assert name == "gpt2" or "stock autocast, grouped by length" in steps


def test_names_become_configurations():
    for name in models.OURS:
        config = models.find(name)
        assert config.model_type == ("gpt2" if name.startswith("gpt2") else "bert")
    assert models.find("bert-large").hidden_size == 1024
