"""The table of evidence is about the ops there are, and its ticks stand for tests there are."""

from pathlib import Path

import pytest
import torch
from steps import STEPS

from bigfast.ops import registry
from bigfast.ops.evidence import DTYPES, EVIDENCE, RUNGS, answers

ROOT = Path(__file__).parents[2]


def mark(op: str, rung: str) -> str:
    """What the test file of `op` must hold where `rung` is ticked."""
    # Without a gradient: what stands for fp64 truth in their tests.
    truth = dict.fromkeys(("attention_decode", "grad_norm", "linear"), ".double()")
    truth |= dict.fromkeys(STEPS, "check_step")
    reference = truth.get(op, "gradcheck")
    # tests/ops/conftest.py has `implementation` run on the interpreter too; tests/aot compares the
    # ops that it compiles with the ticks.
    return {"reference": reference, "compiled": ""}.get(rung, "implementation")


def test_every_op_has_evidence():
    assert sorted(EVIDENCE) == registry.ops()


@pytest.mark.parametrize("op", sorted(EVIDENCE))
def test_ticked_rungs_have_tests(op):
    evidence = EVIDENCE[op]
    text = (ROOT / evidence.tests).read_text()
    assert evidence.rungs
    for rung in evidence.rungs:
        assert rung in RUNGS
        assert mark(op, rung) in text, f"{evidence.tests} does not climb the rung {rung!r} of {op}"


@pytest.mark.parametrize("op", sorted(EVIDENCE))
def test_the_cpu_rung_is_ticked_where_there_is_a_kernel(op):
    native = "cpp" in {candidate.name for candidate in registry.candidates(op, "cpu")}
    assert ("cpu" in EVIDENCE[op].rungs) == native


@pytest.mark.parametrize("op", sorted(EVIDENCE))
def test_the_interpreter_rung_is_ticked_where_there_is_a_triton_kernel(op):
    triton = "triton" in {candidate.name for candidate in registry.candidates(op, "cuda")}
    assert ("interpreter" in EVIDENCE[op].rungs) == triton


@pytest.mark.parametrize("op", sorted(EVIDENCE))
def test_the_emulator_rung_is_ticked_where_there_is_a_cuda_kernel(op):
    cuda = "cpp" in {candidate.name for candidate in registry.candidates(op, "cuda")}
    assert ("emulator" in EVIDENCE[op].rungs) == cuda


@pytest.mark.parametrize("op", sorted(EVIDENCE))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_somebody_serves_every_op_in_every_dtype(op, dtype):
    for device in ("cpu", "cuda"):
        given = answers(op, device, dtype)
        assert [a.name for a in given] == [c.name for c in registry.candidates(op, device)]
        assert any(answer.why_not is None for answer in given)


def test_answers_are_those_of_the_op_itself():
    with registry.watch() as choices:
        EVIDENCE["layer_norm"].call(lambda *shape: torch.zeros(shape))
    (choice,) = [c for c in choices if c[0] == "layer_norm"]
    first = next(a.name for a in answers("layer_norm", "cpu", torch.float32) if a.why_not is None)
    assert registry.choose("layer_norm", "cpu", *choice[2]) == first
