"""The report from a GPU, as far as a machine without one can walk through it."""

import json
import sys

import pytest
from bigfast.benchmarks import goals, gpu_report, gpu_steps, gpu_summary, rows, worker
from bigfast.benchmarks.timing import CPU

H100 = {
    "device": "cuda", "gpu": "NVIDIA H100 80GB HBM3", "cpu": "a CPU", "threads": 16,
    "commit": "c0ffee",
    "peaks": {"copy_GB_s": 3000.0, "bfloat16_TFLOP_s": 800.0, "float32_TFLOP_s": 50.0},
    "versions": {"torch": "2.11"},
}  # fmt: skip


def row(op, shape, implementation, ms, direction="both", **more):
    timed = {
        "op": op, "shape": shape, "dtype": "bfloat16", "direction": direction,
        "implementation": implementation, "ms": ms, "ratio": None, "against": None, "of_peak": None,
    }  # fmt: skip
    return timed | more


def outcome(name, rows):
    (found,) = [g for g in goals.outcomes(rows, H100) if g["name"].startswith(name)]
    return found["verdict"], found["value"]


def result(rows, tests=None):
    return {
        "kind": "gpu-report", "machine": H100, "seconds": 60.0, "tests": tests, "formulas": {},
        "rows": rows, "breakdown": [], "goals": goals.outcomes(rows, H100),
    }  # fmt: skip


def test_the_plan():
    names = [step.name for step in gpu_report.plan([])]
    assert names[:2] == ["environment", "tests"] and names[-1] == "bert-large"
    measured = [op for step in gpu_report.STEPS if step.kind == "ops" for op in step.names]
    assert sorted(measured) == gpu_report.run.names()
    only = gpu_report.plan(["geglu", "gpt2"])
    assert [(step.name, step.names) for step in only[1:]] == [
        ("norms", ("geglu",)), ("gpt2", ("gpt2",)),
    ]  # fmt: skip
    assert gpu_report.test_files(["layer_norm"]) == ["tests/ops/test_layer_norm.py"]
    assert gpu_report.test_files([]) == ["tests/ops"]


def test_bad_input_is_named(capsys):
    assert gpu_report.main(["--dry-run", "--only", "atention"]) == 2
    assert "--only: 'atention' is none of environment, tests, sanitizer" in capsys.readouterr().err
    if not gpu_report.torch.cuda.is_available():
        assert gpu_report.main([]) == 2
        assert "torch sees no GPU here; --dry-run needs none" in capsys.readouterr().err


def test_goals_are_met_by_the_worst_case_of_our_best():
    shape = "llama: 8192 x 32000"
    ours = [row("cross_entropy", shape, "bigfast", 0.47), row("cross_entropy", shape, "torch", 9.0)]
    assert outcome("cross entropy", ours) == ("met", 0.47)
    assert outcome("cross entropy", ours[1:]) == ("not measured", None)
    failed = row("cross_entropy", shape, "bigfast", None, note="failed: illegal access")
    assert outcome("cross entropy", [failed]) == ("not met", None)
    late = failed | {"note": "not run: out of time"}
    assert outcome("cross entropy", [late]) == ("not measured", None)

    packed = [
        row("attention", "bert-base: packed", name, ms, "forward")
        for name, ms in (("bigfast", 2.0), ("varlen_attn", 2.2), ("torch, padded", 8.0))
    ]
    assert outcome("attention packed", packed) == ("not met", pytest.approx(1.1))
    step = [
        row("gpt2", "causal LM", name, 40.0, "step", rate=rate)
        for name, rate in (("bigfast a", 300.0), ("bigfast b", 500.0))
    ]
    assert outcome("GPT-2", step) == ("met", pytest.approx(500 / 989.4))
    lean = {"memory_mb": 150.0, "gradients_mb": 100.0, "logits_mb": 1000.0}
    wide = row("linear_cross_entropy", "x, 16384 labelled", "bigfast", 1.0, **lean)
    assert outcome("linear cross entropy, 16 k rows: memory", [wide]) == ("met", 0.05)
    assert {g["verdict"] for g in goals.outcomes(ours, H100 | {"device": "cpu"})} == {
        "not measured"
    }


def test_the_summary_is_short_and_says_what_failed_first():
    many = [
        row("layer_norm", f"{n} x 8", "bigfast", 1.0, ratio=[1 + n / 10, 1, 2], against="torch")
        for n in range(90)
    ]
    broken = [row("lamb", f"{n}", "bigfast", None, note="failed: boom") for n in range(20)]
    late = [row("lion", f"{n}", "bigfast", None, note="not run: out of time") for n in range(20)]
    tests = {"passed": 3, "skipped": 1, "note": "", "failed": [{"test": "t.py::t", "note": "no"}]}
    made = result(many + broken + late, tests)
    lines = gpu_summary.lines(made)
    assert len(lines) < 60 and max(map(len, lines)) <= 100
    assert "  t.py::t: no" in lines and "failed: 21" in lines and "out of time: 20" in lines
    assert any("layer_norm" in line and "1.00x" in line and "5.45x" in line for line in lines)
    assert len(gpu_summary.failures(made)) == 21
    page = gpu_summary.markdown(made)
    assert "lamb, 7, bfloat16, both: failed: boom" in page and "## Out of time" in page


def test_a_failing_kernel_is_a_row(tiny):
    case = next(tiny.cases())

    def broken(x, p):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    case.ours = broken
    found = list(case.rows(CPU, quick=True))
    assert len(found) == 3 and all(map(rows.has_failed, found))
    assert found[0]["note"].startswith("failed: CUDA error: an illegal")
    case.verify = lambda: None
    found = list(case.rows(CPU, quick=True))
    assert sum(map(rows.has_failed, found)) == 3
    assert {r["implementation"] for r in found if r["ms"]} == {"torch"}


def test_what_cannot_be_listed_or_measured_is_a_row(monkeypatch):
    def cases(op, *rest):
        raise RuntimeError("no memory")

    monkeypatch.setattr(worker, "op_tasks", cases)
    told = []
    worker.measure(list(worker.tasks("ops", ["lion"], CPU, True)), CPU, told.append)
    assert told[0] == {"begin": "lion"}
    assert told[1]["rows"][0]["note"] == "failed: no memory"


CRASHES = """
import json, os, sys
events, skip = sys.argv[sys.argv.index("--events") + 1], int(sys.argv[sys.argv.index("--skip") + 1])
tell = lambda event: open(events, "a").write(json.dumps(event) + "\\n")
if not skip:
    tell({"plan": [["op", f"op, {n}"] for n in range(4)], "formulas": {}})
for n in range(skip, 4):
    tell({"begin": f"op, {n}"})
    if n == 1:
        print("bus error"); os._exit(9)
    tell({"rows": [{"op": "op", "shape": str(n), "implementation": "bigfast", "ms": 1}]})
    if n == 2:
        os._exit(75)
"""


def test_a_fresh_process_goes_on_after_a_crash(tmp_path, monkeypatch):
    """One that dies within a case, and one that ends behind it as the GPU answers no more."""
    watch = gpu_steps.watch
    replaced = lambda command, *rest: watch([sys.executable, "-c", CRASHES, *command[3:]], *rest)
    monkeypatch.setattr(gpu_steps, "watch", replaced)
    found = gpu_steps.work("op", ["ops", "op"], tmp_path, 60, {})
    assert [r["shape"] for r in found.rows] == ["0", "1", "2", "3"]
    assert found.rows[1]["note"] == "failed: its process ended with code 9: bus error"
    assert [r["ms"] for r in found.rows] == [1, None, 1, 1]


def test_what_does_not_fit_into_the_time_is_told(tmp_path, monkeypatch):
    slow = CRASHES.replace("os._exit(9)", "import time; time.sleep(60)")
    watch = gpu_steps.watch
    replaced = lambda command, *rest: watch([sys.executable, "-c", slow, *command[3:]], *rest)
    monkeypatch.setattr(gpu_steps, "watch", replaced)
    found = gpu_steps.work("op", ["ops", "op"], tmp_path, 1.5, {})
    assert [r.get("note") for r in found.rows] == [None, *3 * [gpu_steps.OUT_OF_TIME]]
    monkeypatch.undo()
    gone = gpu_steps.work("op", ["nonsense"], tmp_path, 0, {})
    assert "the whole step" in gone.rows[0]["shape"]


SANITIZER = """#!{python}
import json, os, sys
tool = sys.argv[sys.argv.index("--tool") + 1]
with open(os.environ["BIGFAST_TEST_EVENTS"], "a") as file:
    file.write(json.dumps({{"test": "t", "outcome": "passed"}}) + "\\n")
if tool == "racecheck":
    print("========= Error: Race reported between Write access and Read access")
    sys.exit(99)
"""


def test_what_the_sanitizer_finds_is_a_row(tmp_path, monkeypatch):
    """A program of its name stands for compute-sanitizer."""
    assert "not run" in gpu_steps.sanitize(["tests/ops"], tmp_path, 1)[0]
    program = tmp_path / "compute-sanitizer"
    program.write_text(SANITIZER.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu_steps.library, "cuda_missing", lambda: None)
    said, found = gpu_steps.sanitize(["tests/ops"], tmp_path, 60)
    assert said["memcheck"] == said["initcheck"] == "clean in 1 tests"
    (only,) = found
    assert only["shape"] == "racecheck" and "Race reported" in only["note"]
    assert rows.has_failed(only)


@pytest.mark.slow
def test_a_part_of_the_dry_run(tmp_path, capsys):
    code = gpu_report.main(["--dry-run", "--only", "geglu", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert code == 0, out
    assert "Not measured on a GPU" in out
    (file,) = tmp_path.glob("*.json")
    made = json.loads(file.read_text())
    assert rows.load(file) == made
    assert {r["op"] for r in made["rows"]} == {"geglu"}
    assert {g["verdict"] for g in made["goals"]} == {"not measured"}
    assert file.with_suffix(".png").exists()
    assert "## Ops" in file.with_suffix(".md").read_text()
