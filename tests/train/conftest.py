import pytest
from toy import ToyTask, make_model

from bigfast.train import TrainConfig, Trainer, trainer


@pytest.fixture(autouse=True)
def peak(monkeypatch):
    """A second less per run: the peak is not measured, but in its own test."""
    monkeypatch.setattr(trainer, "measured_peak_flops", lambda device, dtype: 1e9)


@pytest.fixture
def run(tmp_path):
    """run(folder, ...) trains the toy and returns (result, trainer)."""

    def run(folder="run", *, model=None, task=None, tokenizer=None, **settings):
        defaults = {"max_steps": 8, "learning_rate": 1e-2, "logging_steps": 1, "tensorboard": False}
        config = TrainConfig(output_dir=str(tmp_path / folder), **{**defaults, **settings})
        trainer = Trainer(model or make_model(), task or ToyTask(), config, tokenizer)
        return trainer.train(), trainer

    return run
