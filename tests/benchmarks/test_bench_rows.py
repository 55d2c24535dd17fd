"""The row format, the ratios and their intervals, and files that are no results."""

import json
import os

import pytest
import torch
from bigfast.benchmarks import machine, report, rows
from bigfast.benchmarks.case import Case
from bigfast.benchmarks.timing import CPU, Times, interleave, ratio, summary

from bigfast import memory

FIELDS = {
    *rows.KEY, "ms", "p20_ms", "p80_ms", "rounds", "rate", "unit", "of_peak", "memory_mb", "ratio",
    "against",
}  # fmt: skip


def times(*ms):
    return summary([float(x) for x in ms])


def test_a_summary_is_the_median_and_the_fifths():
    t = times(5, 1, 2, 4, 3, 6)
    assert (t.median, t.p20, t.p80) == (3.5, 2, 5)
    assert times(1, 2, 30).p20 > 1  # never outside of what was seen
    assert times(3) == Times(3, 3, 3, [3])


def test_calls_take_turns():
    turns = []
    result = interleave({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, 0, 3)
    assert turns[-6:] == ["a", "b"] * 3
    assert [len(t.all) for t in result.values()] == [3, 3]


def test_the_ratio_is_taken_round_by_round():
    """A slow round of both says nothing: the ratio is 2 in each."""
    assert ratio(times(2, 20, 4), times(1, 10, 2)) == (2, 2, 2)
    middle, low, high = ratio(times(2, 2, 2, 4, 4), times(1, 1, 1, 1, 1))
    assert (middle, low) == (2, 2)
    assert high > 2


def test_each_camp_is_compared_with_the_fastest_of_the_other():
    measured = {
        "bigfast a": times(2, 2), "bigfast b": times(1, 1), "torch": times(4, 4), "x": times(3, 3),
    }  # fmt: skip
    assert rows.compare(measured) == {
        "bigfast a": ("x", (1.5, 1.5, 1.5)),
        "bigfast b": ("x", (3, 3, 3)),
        "torch": ("bigfast b", (4, 4, 4)),
        "x": ("bigfast b", (3, 3, 3)),
    }
    assert rows.compare({"torch": times(1, 1)}) == {}


def test_what_counts_as_lost():
    row = {"implementation": "bigfast", "ms": 1.0, "ratio": [0.9, 0.8, 1.1]}
    assert rows.lost(row)
    assert rows.lost(row | {"ms": None})
    assert not rows.lost(row | {"ratio": [1.01, 0.9, 1.1]})
    assert not rows.lost(row | {"ratio": None})
    assert not rows.lost(row | {"implementation": "torch"})


def test_rows_of_a_case(tiny, peaks):
    case = next(tiny.cases())
    found = list(case.rows(CPU, quick=True))
    rows.add_shares(found, peaks)
    assert [r["direction"] for r in found] == [
        d for d in ("forward", "backward", "both") for _ in range(3)
    ]
    assert [r["implementation"] for r in found[:3]] == ["bigfast", "torch", "other"]
    for row in found:
        if row["implementation"] == "other":
            assert row["ms"] is None
            assert row["note"] == "no such kernel here"
            continue
        assert row.keys() >= FIELDS
        assert row["p20_ms"] <= row["ms"] <= row["p80_ms"]
        amount, unit = case.amount(row["direction"])
        assert row["unit"] == unit == "GB/s"
        assert row["rate"] == pytest.approx(amount / row["ms"] / 1e6, rel=1e-2)
        assert row["of_peak"] == pytest.approx(row["rate"] / peaks["copy_GB_s"], rel=1e-2)
    assert case.amount("backward")[0] == case.amount("both")[0] - case.amount("forward")[0]
    json.dumps(found)


def test_a_wrong_kernel_is_not_timed():
    def never(x, p):
        raise AssertionError("timed, or called more often than the check does")

    calls = []

    def wrong(x, p):
        calls.append(1)
        return x * 2.5 if len(calls) == 1 else never(x, p)

    x = torch.randn(4, 4, requires_grad=True)
    work = {"forward": (1.0, "GB/s"), "both": (2.0, "GB/s")}
    case = Case("tiny", "4 x 4", torch.float32, (x,), wrong, {"torch": lambda x, p: x * 2}, work)
    with pytest.raises(RuntimeError, match="times the allowed error"):
        case.verify()
    calls.clear()
    found = list(case.rows(CPU, quick=True))
    assert {r["implementation"] for r in found} == {"bigfast"}
    assert all(r["ms"] is None and r["note"].startswith("wrong, so not timed") for r in found)
    assert all(map(rows.lost, found))


def test_the_share_of_peak_is_of_the_dtype():
    peaks = {"copy_GB_s": 20.0, "bfloat16_TFLOP_s": 0.4, "float32_TFLOP_s": 0.1}
    assert machine.of_peak(10, "GB/s", "bfloat16", peaks) == 0.5
    assert machine.of_peak(0.1, "TFLOP/s", "bfloat16", peaks) == pytest.approx(0.25)
    assert machine.of_peak(0.1, "TFLOP/s", "float32", peaks) == 1
    assert machine.of_peak(0.1, "TFLOP/s", "float16", peaks) is None


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no such mark here")
def test_peak_memory_is_that_of_the_call():
    peak = memory.peak_mb(lambda: torch.ones(16 << 20), CPU)
    assert peak is not None and 60 < peak < 120  # 67 MB of ones


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no result of `bigfast bench"),
        ('{"rows": []}', "no result of `bigfast bench"),
        ('{"machine_info": {}, "benchmarks": []}', "pytest-benchmark's JSON"),
        ('{"machine": {}, "rows": [{"op": "x"}]}', r"rows\[0\] lacks shape, dtype"),
    ],
)
def test_files_that_are_no_results(tmp_path, text, message):
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        rows.load(file)
    assert str(file) in str(caught.value)


def test_a_result_survives_its_file(tmp_path):
    result = {"kind": "ops", "machine": {}, "rows": []}
    rows.save(result, tmp_path / "new" / "a.json")
    assert rows.load(tmp_path / "new" / "a.json") == result


def test_speedup_between_two_results():
    before = {"ms": 4.0, "p20_ms": 3.0, "p80_ms": 6.0}
    after = {"ms": 2.0, "p20_ms": 1.5, "p80_ms": 2.0}
    assert report.speedup(before, after) == (2.0, 1.5, 4.0)


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (1234.5, "1234"), (12.34, "12.3"), (0.01234, "0.0123")]
)
def test_numbers(value, text):
    assert report.number(value) == text
