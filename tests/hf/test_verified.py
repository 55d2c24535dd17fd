"""docs/verified.md: a row per model, and a verdict."""

import verified
from families import heads

from bigfast.hf import draws


def test_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(verified, "_GROWN", {})
    page = tmp_path / "verified.md"
    assert verified.main([str(page), "distilbert"]) == 0
    text = page.read_text()
    found = [line for line in text.splitlines() if line.startswith("| DistilBert")]
    assert [line.split()[1].removeprefix("DistilBert") for line in found] == heads("distilbert")
    assert sum("x |" in line for line in found) == 1  # one of them is timed
    assert "All are within the policy." in text and "6 models of 1 families" in text
    monkeypatch.setattr(draws, "judge", lambda *_: {"outputs": {"logits": 3.0}})
    monkeypatch.setattr(verified, "main_head", lambda family: "none")
    assert verified.main([str(page), "distilbert"]) == 1
    assert "NOT ALL ARE WITHIN" in page.read_text() and "6.00 |  |  | **NOT" in page.read_text()
