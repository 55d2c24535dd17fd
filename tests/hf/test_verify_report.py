"""`bigfast.verify`: what it judges, what it measures, and what it says."""

import math
import sys

import pytest
import torch
from berts import batch, make, token_labels

import bigfast
from bigfast.hf import draws
from bigfast.hf.costs import _parts
from bigfast.hf.examples import sentences
from bigfast.hf.results import rows_of

module = sys.modules[bigfast.verify.__module__]  # bigfast.hf.verify is the function


def labelled(size: int = 8) -> dict[str, torch.Tensor]:
    inputs = batch(size=size)
    return inputs | {"labels": token_labels(inputs)}


def test_report():
    told = []
    report = bigfast.verify(make(), labelled(), 3, lambda *values: told.append(values))
    assert report.ok and report.truth == torch.float64
    assert all(len(curve) == 3 for curve in report.losses.values())
    assert set(report.costs) == {"training step", "inference"}
    for found in report.costs.values():
        assert set(found) == {"stock, sdpa", "stock, eager", "stock, sdpa, by length", "swapped"}
        assert all(cost.seconds > 0 for cost in found.values())
    step = report.costs["training step"]
    best = min(cost.seconds for name, cost in step.items() if name != "swapped")
    assert report.speedup() == best / step["swapped"].seconds
    assert "8 sequences" in report.conditions and "3 steps" in report.conditions
    assert "units of stock's own rounding error (2 is allowed)" in str(report)
    assert [done for _, done, _ in told] == list(range(told[-1][2]))  # every part, once


def test_numbers_alone(tmp_path):
    told = []
    tell = lambda *values: told.append(values)
    report = bigfast.verify(make(), labelled(), 2, tell, timed=False)
    assert report.ok and not report.costs and "times as fast" not in str(report)
    assert [done for _, done, _ in told] == list(range(told[-1][2]))
    report.save_picture(str(tmp_path / "numbers.png"))
    assert (tmp_path / "numbers.png").read_bytes().startswith(b"\x89PNG")


def test_chance_is_drawn_again(monkeypatch):
    """What exceeds the policy once, and that alone; the user's weights stay."""
    told, asked, model = [], [], make()
    before = {name: p.clone() for name, p in model.named_parameters()}

    def judge(ours, plains, truth, exact):
        asked.append(ours)
        errors = real(ours, plains, truth, exact)
        return errors | ({"outputs": {"logits": 1.5}} if len(asked) == 1 else {})

    real = draws.judge
    monkeypatch.setattr(draws, "judge", judge)
    report = bigfast.verify(model, labelled(), 2, lambda *v: told.append(v), timed=False)
    assert report.ok and report.draws == 3 and "was run on 3 sets of weights" in str(report)
    every = {"outputs", "gradients", "losses"}
    assert [set(kinds) for kinds in asked] == [every, {"outputs"}, {"outputs"}]
    once, *again = (kinds["outputs"]["logits"] for kinds in asked)
    for other in again:
        assert not torch.equal(other, once)
        torch.testing.assert_close(other, once, rtol=0, atol=0.05)
    assert [done for _, done, _ in told] == list(range(told[-1][2]))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_fault_shows_in_every_draw(monkeypatch):
    real = bigfast.ops.attention
    monkeypatch.setattr(bigfast.ops, "attention", lambda *args, **kw: real(*args, **kw) * 1.0001)
    report = bigfast.verify(make(), labelled(), 2, timed=False)
    assert not report.ok and report.draws == 3


def test_fp32_is_the_truth_where_fp64_does_not_fit(monkeypatch):
    model = make().to(torch.float32)
    parameters = sum(p.numel() for p in model.parameters())
    monkeypatch.setattr(module, "available_bytes", lambda device: 36 * parameters)
    report = bigfast.verify(model, labelled())
    assert report.truth == torch.float32 and report.ok, str(report)
    assert "not enough memory for an fp64 copy" in str(report)
    assert math.isfinite(report.worst[1]) and report.worst[1] > 0
    monkeypatch.setattr(module, "available_bytes", lambda device: parameters)
    with pytest.raises(ValueError, match=r"to compare its .* million parameters takes about"):
        bigfast.verify(model, labelled(), 2)


def test_the_picture_of_a_fault(tmp_path):
    report = bigfast.verify(make(), labelled(), 2)
    report.errors["gradients"]["a.name.that.is.far.too.long.for.the.margin.of.a.picture"] = 1e3
    assert not report.ok
    report.save_picture(str(tmp_path / "fault.png"))
    assert (tmp_path / "fault.png").read_bytes().startswith(b"\x89PNG")


def test_rows_lose_their_common_padding():
    inputs = labelled()
    inputs["attention_mask"][:4, 12:] = 0
    few = rows_of(inputs, torch.arange(4))
    assert {tuple(v.shape) for v in few.values()} == {(4, 12)}
    inputs["position_ids"] = torch.arange(20)[None]  # fits every row, so nothing is cut
    assert rows_of(inputs, torch.arange(4))["labels"].shape == (4, 20)


def test_parts_by_length():
    inputs = labelled(32)
    plain, grouped = _parts(inputs)
    padded = lambda parts: sum(part["input_ids"].numel() for part in parts)
    assert len(plain) == len(grouped) == 4 and padded(grouped) < padded(plain)
    real = int(inputs["attention_mask"].sum())
    assert all(sum(int(p["attention_mask"].sum()) for p in ps) == real for ps in (plain, grouped))
    inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
    assert _parts(inputs) == ([inputs], None)


def test_the_sentences_that_come_with_the_package():
    found = sentences()
    assert len(set(found)) == 48 and sum(map(len, found)) > 4000
    lengths = sorted(len(text.split()) for text in found)
    assert lengths[0] <= 3 and lengths[-1] >= 50
