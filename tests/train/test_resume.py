"""Checkpoints: resume bit for bit, kills at any point, signals, pruning, no pickle."""

import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import ToyTask, make_model

from bigfast.train import TrainConfig, Trainer
from bigfast.train.checkpoint import checkpoints, random_state, set_random_state
from bigfast.train.tracking import read_log

HERE = Path(__file__).parent
TIMES = {"tokens_per_s", "mfu", "seconds", "memory_gb"}


class StoppingTask(ToyTask):
    """Sends itself `number` while computing the loss of batch `at`."""

    def __init__(self, at, number=signal.SIGTERM):
        super().__init__()
        self.at, self.number, self.calls = at, number, 0

    def loss(self, model, batch, counts):
        if model.training:
            if self.calls == self.at:
                os.kill(os.getpid(), self.number)
            self.calls += 1
        return super().loss(model, batch, counts)


def numbers(folder):
    """The rows of a log without what depends on the clock."""
    rows = [row for row in read_log(folder / "log.jsonl") if row["type"] == "train"]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def assert_same_bits(trainer, other):
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name
    for name in trainer.parameters:
        state, theirs = (t.optimizer.state[t.parameters[name]] for t in (trainer, other))
        assert state.keys() == theirs.keys()
        for key, value in state.items():
            assert value.dtype == theirs[key].dtype and torch.equal(value, theirs[key]), key


@pytest.mark.parametrize("precision", ["fp32", "bf16-autocast", "bf16-master"])
def test_resume_continues_bit_for_bit(run, tmp_path, precision):
    settings = {
        "precision": precision,
        "max_steps": 12,
        "gradient_accumulation_steps": 2,
        "warmup_ratio": 0.25,
        "weight_decay": 0.01,
        "logging_steps": 3,
        "eval_steps": 4,
    }
    whole, a = run("whole", **settings)
    with pytest.raises(SystemExit) as stopped:  # in the middle of step 5, and of a log row
        run("parts", task=StoppingTask(at=9), **settings)
    assert stopped.value.code == 0
    assert [path.name for path in checkpoints(tmp_path / "parts")] == ["checkpoint-5"]
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    parts, b = run("parts", model=make_model(), resume=True, **settings)
    assert_same_bits(a, b)
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "parts")
    assert (whole.loss, whole.val, whole.best_val) == (parts.loss, parts.val, parts.best_val)
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (whole.checkpoint / name).read_bytes() == (parts.checkpoint / name).read_bytes()


def test_resume_drops_the_rows_that_the_lost_part_wrote(run, tmp_path):
    class FailingTask(ToyTask):
        def batch(self, position):
            if position == 7:
                raise OSError("disk")
            return super().batch(position)

    with pytest.raises(OSError):
        run("parts", task=FailingTask(), save_steps=3)
    log = tmp_path / "parts/log.jsonl"
    assert [row["step"] for row in numbers(log.parent)][-1] == 7
    log.write_text(log.read_text() + '{"type": "train", "st')
    run("whole", save_steps=3)
    run("parts", save_steps=3, resume=True)
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "parts")
    headers = [row for row in read_log(log) if row["type"] == "header"]
    assert [header["resumed_from_step"] for header in headers] == [0, 6]


def test_resume_from_a_path(run, tmp_path):
    result, _ = run("first", save_steps=4)
    early = str(result.output_dir / "checkpoint-4")
    with pytest.raises(ValueError, match="resume"):
        run("first", resume=early)
    second, _ = run("second", resume=early)
    assert numbers(tmp_path / "second") == numbers(tmp_path / "first")[4:]
    again, _ = run("second", resume=str(second.checkpoint))
    assert (again.steps, again.loss) == (second.steps, second.loss)
    with pytest.raises(ValueError, match="no checkpoint at"):
        run("third", resume=str(tmp_path))
    with pytest.raises(ValueError, match="precision='bf16-master'"):
        run("second", resume=True, precision="bf16-master")
    with pytest.raises(ValueError, match="embedding"):
        run("second", resume=True, model=make_model(width=8))


def test_resume_without_a_checkpoint_begins(run, tmp_path):
    run("whole")
    run("new", resume=True)
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "new")


def test_random_generators_come_back():
    def draw():
        return random.gauss(0, 1), np.random.randn(), torch.randn(3).tolist()

    draw()
    state = random_state(torch.device("cpu"))
    expected = draw()
    set_random_state(state)
    assert draw() == expected


def test_only_the_last_checkpoints_are_kept(run):
    result, _ = run(save_steps=2, save_total_limit=2)
    assert [path.name for path in checkpoints(result.output_dir)] == [
        "checkpoint-6",
        "checkpoint-8",
    ]
    assert not list(result.output_dir.glob(".tmp-*"))


def test_nothing_is_pickled(run):
    result, _ = run(precision="bf16-master", tensorboard=True, save_steps=4)
    files = [path for path in result.output_dir.rglob("*") if path.is_file()]
    assert len(files) >= 9
    for path in files:
        data = path.read_bytes()
        assert not data.startswith((b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))
        assert b"ctorch" not in data and path.suffix not in {".pt", ".pth", ".bin", ".pkl"}


# -- in processes of their own ---------------------------------------------------------------------


def start(folder, before="", task="ToyTask()", **settings):
    """A process that trains the toy into `folder`, after running the code `before`."""
    settings = {"max_steps": 8, "logging_steps": 1, "tensorboard": False, **settings}
    code = f"""
        import os, signal, sys, time
        sys.path[:0] = [{str(HERE)!r}, {str(HERE.parents[1])!r}]
        from toy import ToyTask, make_model
        from bigfast.train import TrainConfig, Trainer, checkpoint, trainer
        trainer.measured_peak_flops = lambda device, dtype: 1e9

        class SlowTask(ToyTask):
            def loss(self, *args):
                time.sleep(0.05)
                return super().loss(*args)
    """
    code = textwrap.dedent(code) + textwrap.dedent(before)
    code += f"Trainer(make_model(), {task}, TrainConfig({str(folder)!r}, **{settings!r})).train()\n"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True)


# Where the second save dies: between its files, after the last of them, and after the rename.
KILLS = {
    "model": "checkpoint.save_file = after_calls(2, checkpoint.save_file)",
    "flush": "checkpoint._flush_tree = after_calls(1, checkpoint._flush_tree)",
    "rename": "checkpoint.Path.rename = after_calls(1, checkpoint.Path.rename)",
    "prune": "checkpoint.shutil.rmtree = after_calls(0, checkpoint.shutil.rmtree)",
}


def test_a_kill_in_the_middle_of_a_save_loses_nothing(run, tmp_path):
    before = """
        def after_calls(calls, function):
            def call(*args, **kwargs):
                nonlocal calls
                if calls == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls -= 1
                return function(*args, **kwargs)
            return call
    """
    settings = {"learning_rate": 1e-2, "save_steps": 3, "save_total_limit": 1}
    processes = {
        where: start(tmp_path / where, textwrap.dedent(before) + patch + "\n", **settings)
        for where, patch in KILLS.items()
    }
    run("whole", **settings)
    for where, process in processes.items():
        output = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, output
        folder = tmp_path / where
        last = "checkpoint-6" if where == "prune" else "checkpoint-3"
        assert [path.name for path in checkpoints(folder)] == [last]
        assert list(folder.glob(".tmp-checkpoint-*"))
        run(where, resume=True, **settings)
        assert numbers(folder) == numbers(tmp_path / "whole")
        assert not list(folder.glob(".tmp-*"))


def test_signals_save_and_exit(tmp_path):
    settings = {"max_steps": 1000}
    cases = {signal.SIGTERM: 0, signal.SIGINT: 130}
    processes = {n: start(tmp_path / n.name, task="SlowTask()", **settings) for n in cases}
    for number, process in processes.items():
        assert process.stdout.readline().startswith("step 1 ")
        process.send_signal(number)
    for number, process in processes.items():
        output, errors = process.communicate(timeout=60)
        assert process.returncode == cases[number], errors
        (saved,) = checkpoints(tmp_path / number.name)
        assert f"{number.name}: saved {saved}" in output and not errors
        assert numbers(tmp_path / number.name)[-1]["step"] == int(saved.name.split("-")[1])


def test_a_second_ctrl_c_exits_at_once(tmp_path):
    before = "ToyTask.loss = lambda *args: print(1, flush=True) or time.sleep(60)\n"
    process = start(tmp_path / "run", before)
    process.stdout.readline()
    for _ in range(20):
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            continue
    assert process.returncode == 130
    assert not checkpoints(tmp_path / "run")


def test_former_signal_handlers_come_back(run, tmp_path):
    former = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    run(max_steps=1)
    config = TrainConfig(str(tmp_path / "stopped"), max_steps=9, tensorboard=False)
    with pytest.raises(SystemExit) as stopped:
        Trainer(make_model(), StoppingTask(2, signal.SIGINT), config).train()
    assert stopped.value.code == 130
    assert {n: signal.getsignal(n) for n in former} == former
