"""bigfast info: every op, who serves it, the evidence, and why not the others."""

from bigfast.cli import info
from bigfast.ops import registry
from bigfast.ops.evidence import RUNGS


def test_every_op_has_a_row(bigfast):
    code, out, err = bigfast("info")
    assert (code, err) == (0, "")
    header, rows = info.table()
    assert [row[0] for row in rows] == registry.ops()
    assert all(len(row) == len(header) == 3 + len(RUNGS) for row in rows)
    assert all(f"\n{op} " in out for op in registry.ops())
    assert "why the others do not serve" in out
    assert "torch 2" in out


def test_markdown(bigfast):
    code, out, _ = bigfast("info", "--markdown")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("| op | on cpu | on cuda | reference | CPU |")
    assert len(lines) == 2 + len(registry.ops())
    assert len({line.count("|") for line in lines}) == 1


def test_a_refusal_and_a_rank_are_told(bigfast, monkeypatch):
    refuse = registry.Implementation("cpp", lambda *args: "for a reason of its own")
    ranked = (refuse, registry.Implementation("torch", registry.always), registry.REFERENCE)
    monkeypatch.setitem(registry._candidates, "layer_norm", {"cpu": ranked})
    assert info.served("layer_norm", "cpu") == "torch"
    lines = [line for line in info.reasons() if line.startswith("  layer_norm, cpu")]
    assert lines == ["  layer_norm, cpu, fp32 bf16 fp16: cpp: for a reason of its own"]
    behind = (registry.Implementation("cpp", registry.always), *ranked[1:])
    monkeypatch.setitem(registry._candidates, "layer_norm", {"cpu": behind})
    lines = [line for line in info.reasons() if line.startswith("  layer_norm, cpu")]
    assert lines == ["  layer_norm, cpu, fp32 bf16 fp16: torch: cpp comes first"]


def test_a_forced_backend_does_not_break_it(bigfast):
    with registry.backend("cpp"):
        assert bigfast("info").code == 0
