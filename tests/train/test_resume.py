"""Checkpoints: resume bit for bit, kills at any point, signals, pruning, no pickle."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import ToyTask, make_model

from bigfast.train import TrainConfig, Trainer, checkpoint, trainer
from bigfast.train.checkpoint import checkpoints, random_state, set_random_state
from bigfast.train.tracking import read_log

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


@pytest.mark.parametrize(
    ("precision", "optim"),
    [
        ("fp32", "adamw"),
        ("bf16-autocast", "lion"),
        ("bf16-master", "adamw"),
        ("bf16-master", "lamb"),
        ("bf16", "adamw"),
        ("bf16", "stable_adamw"),
    ],
)
def test_resume_continues_bit_for_bit(run, tmp_path, precision, optim):
    settings = {
        "precision": precision,
        "optim": optim,
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
    with pytest.raises(ValueError, match=r"optim='lion' cannot continue .* with 'adamw'"):
        run("second", resume=True, optim="lion")
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

# Where the second save dies: between its files, when they are written, at the rename, after it.
KILLS = {
    "model": (checkpoint, "save_file", 2),
    "flush": (checkpoint, "_flush_tree", 1),
    "rename": (Path, "rename", 1),
    "prune": (shutil, "rmtree", 0),
}


class SlowTask(ToyTask):
    seconds = 0.05

    def loss(self, *args):
        time.sleep(self.seconds)
        return super().loss(*args)


class StuckTask(SlowTask):
    seconds = 60

    def loss(self, *args):
        print("stuck", flush=True)
        return super().loss(*args)


def train_in_child(folder, task, settings, kill):
    """Train the toy, output in `folder`.txt; `kill`: (owner, name, calls) of KILLS that end it."""
    with open(f"{folder}.txt", "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    trainer.measured_peak_flops = lambda device, dtype: 1e9
    if kill is not None:
        owner, name, calls = KILLS[kill]
        original, seen = getattr(owner, name), []

        def call(*args, **kwargs):
            seen.append(name)
            if len(seen) > calls:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(owner, name, call)
    settings = {"max_steps": 8, "logging_steps": 1, "tensorboard": False, **settings}
    Trainer(make_model(), task, TrainConfig(str(folder), **settings)).train()


def start(folder, task, kill=None, **settings):
    """A process that trains the toy into `folder`; they fork from one in which torch is loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toy", "bigfast.train", "torch._dynamo"])
    process = context.Process(target=train_in_child, args=(folder, task, settings, kill))
    process.start()
    return process


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_kill_in_the_middle_of_a_save_loses_nothing(run, tmp_path):
    settings = {"learning_rate": 1e-2, "save_steps": 3, "save_total_limit": 1}
    processes = {k: start(tmp_path / k, ToyTask(), kill=k, **settings) for k in KILLS}
    run("whole", **settings)
    for kill, process in processes.items():
        folder = tmp_path / kill
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, Path(f"{folder}.txt").read_text()
        last = "checkpoint-6" if kill == "prune" else "checkpoint-3"
        assert [path.name for path in checkpoints(folder)] == [last]
        assert list(folder.glob(".tmp-checkpoint-*"))
        run(kill, resume=True, **settings)
        assert numbers(folder) == numbers(tmp_path / "whole")
        assert not list(folder.glob(".tmp-*"))


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_save_and_exit(tmp_path, number, code):
    folder = tmp_path / "run"
    process = start(folder, SlowTask(), max_steps=1000)
    wait_for(lambda: (folder / "log.jsonl").exists() and numbers(folder))
    os.kill(process.pid, number)
    process.join(60)
    output = Path(f"{folder}.txt").read_text()
    assert process.exitcode == code, output
    (saved,) = checkpoints(folder)
    assert output.endswith(f"{number.name}: saved {saved}; resume continues from there\n")
    assert numbers(folder)[-1]["step"] == int(saved.name.split("-")[1])


def test_a_second_ctrl_c_exits_at_once(tmp_path):
    process = start(tmp_path / "run", StuckTask())
    output = tmp_path / "run.txt"
    wait_for(lambda: output.exists() and "stuck" in output.read_text())
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.2)
    process.join(10)
    assert process.exitcode == 130
    assert not checkpoints(tmp_path / "run")


def test_former_signal_handlers_come_back(run, tmp_path):
    former = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    run(max_steps=1)
    config = TrainConfig(str(tmp_path / "stopped"), max_steps=9, tensorboard=False)
    with pytest.raises(SystemExit) as stopped:
        Trainer(make_model(), StoppingTask(2, signal.SIGINT), config).train()
    assert stopped.value.code == 130
    assert {n: signal.getsignal(n) for n in former} == former
