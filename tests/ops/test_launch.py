"""The launch table, and how autotuning writes it; what is timed is not there."""

import json

import pytest
import torch

pytest.importorskip("triton")

from bigfast.kernels import launch

BUCKET = "16 bits, 64 dims, 512 tokens"


@pytest.fixture
def tuned(monkeypatch, tmp_path):
    """autotune(capability, seconds by choice) -> choices that were tried, the one that then runs,
    and what was written."""

    def autotune(capability, seconds):
        table = tmp_path / f"{capability[0]}.json"
        table.write_text(launch.TABLE.read_text())
        monkeypatch.setenv("BIGFAST_AUTOTUNE", "1")
        read = json.loads(table.read_text())
        monkeypatch.setattr(launch, "_table", lambda: read)
        monkeypatch.setattr(launch, "TABLE", table)
        monkeypatch.setattr(launch, "_tuned", set())
        monkeypatch.setattr(launch, "architecture", lambda device: f"sm_{capability[0]}0")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        ran = []

        def do_bench(run, return_mode):
            run()
            return seconds(ran[-1])

        monkeypatch.setattr(launch.triton.testing, "do_bench", do_bench)
        for _ in range(2):  # the second call times nothing
            launch.launch("attention_fwd", BUCKET, torch.device("cuda", 0), ran.append)
        *tried, first, second = ran
        assert first == second
        return tried, first, json.loads(table.read_text())

    return autotune


def test_the_fastest_is_written(tuned):
    before = launch.TABLE.read_text()
    candidates = json.loads(before)["attention_fwd"]["candidates"]
    tried, chosen, written = tuned((9, 0), lambda choice: -choice["BLOCK_N"] - choice["num_stages"])
    assert tried == candidates
    assert chosen["BLOCK_N"] == 128 and written["attention_fwd"]["sm_90"][BUCKET] == chosen
    written["attention_fwd"]["sm_90"][BUCKET] = json.loads(before)["attention_fwd"]["sm_90"][BUCKET]
    assert written == json.loads(before)


def test_a_choice_that_does_not_fit_is_left_out(tuned):
    def seconds(choice):
        if choice["BLOCK_M"] == 128:
            raise launch.triton.runtime.errors.OutOfResources(1, 0, "shared memory")
        return -choice["BLOCK_M"]

    assert tuned((9, 0), seconds)[1]["BLOCK_M"] == 64


def test_descriptors_are_for_hopper_and_later(tuned):
    by_descriptor = lambda choice: -choice.get("TMA", 0)
    assert not any("TMA" in choice for choice in tuned((8, 0), by_descriptor)[0])
    assert tuned((10, 0), by_descriptor)[1]["TMA"] == 1


def test_the_table_is_written_as_it_stands(monkeypatch, tmp_path):
    """What autotuning writes differs from what is committed where a choice does."""
    text = launch.TABLE.read_text()
    monkeypatch.setattr(launch, "_table", lambda: json.loads(text))
    monkeypatch.setattr(launch, "TABLE", tmp_path / "launch.json")
    launch.write()
    assert (tmp_path / "launch.json").read_text() == text


def test_no_choice_by_descriptor_is_a_default():
    """None has been measured."""
    for entries in json.loads(launch.TABLE.read_text()).values():
        for name, choices in entries.items():
            assert name == "candidates" or not any("TMA" in c for c in choices.values())
