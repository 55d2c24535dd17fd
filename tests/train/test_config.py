"""Settings and the learning-rate schedule."""

import math

import pytest

from bigfast.train import TrainConfig
from bigfast.train.schedule import lr_factor


@pytest.mark.parametrize(
    "name, value",
    [
        ("max_steps", 0),
        ("max_minutes", -1.0),
        ("gradient_accumulation_steps", 0),
        ("optim", "sgd"),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("weight_decay", -0.1),
        ("adam_beta1", 1.0),
        ("adam_beta2", -0.5),
        ("adam_epsilon", 0.0),
        ("max_grad_norm", -1.0),
        ("lr_scheduler_type", "polynomial"),
        ("warmup_steps", -1),
        ("warmup_steps", 10),
        ("warmup_ratio", 1.0),
        ("min_lr_ratio", 1.5),
        ("precision", "fp8"),
        ("seed", -1),
        ("logging_steps", 0),
        ("eval_steps", -1),
        ("save_steps", -1),
        ("save_total_limit", 0),
    ],
)
def test_bad_values_are_named(name, value):
    with pytest.raises(ValueError, match=name) as error:
        TrainConfig("out", **{"max_steps": 10, name: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(
    "settings, named",
    [
        ({}, "max_minutes"),
        ({"max_steps": 9, "warmup_steps": 2, "warmup_ratio": 0.1}, "exclude"),
        ({"max_minutes": 1.0, "warmup_steps": 2}, "warmup_ratio"),
        ({"max_steps": 9, "lr_scheduler_type": "constant", "min_lr_ratio": 0.1}, "min_lr_ratio"),
    ],
)
def test_settings_that_contradict_each_other(settings, named):
    with pytest.raises(ValueError, match=named):
        TrainConfig("out", **settings)


def test_unknown_settings_are_errors():
    with pytest.raises(TypeError, match="learning_rat"):
        TrainConfig("out", max_steps=1, learning_rat=1e-3)


def test_schedules_have_hugging_faces_values():
    steps, warmup = 100, 10
    for step in range(steps):
        share = step / steps
        rising = step < warmup
        linear = step / warmup if rising else (steps - step) / (steps - warmup)
        done = (step - warmup) / (steps - warmup)
        cosine = step / warmup if rising else 0.5 * (1 + math.cos(math.pi * done))
        assert lr_factor(share, "linear", warmup=0.1) == pytest.approx(linear)
        assert lr_factor(share, "cosine", warmup=0.1) == pytest.approx(cosine)
        assert lr_factor(share, "constant", warmup=0.1) == pytest.approx(min(1, step / warmup))


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_the_decay_ends_at_the_least_rate(kind):
    assert lr_factor(0.0, kind) == 1.0
    assert lr_factor(1.0, kind, warmup=0.2, min_ratio=0.1) == pytest.approx(0.1)
    assert lr_factor(0.6, kind, warmup=0.2, min_ratio=0.1) == pytest.approx(0.55)


def test_progress_follows_steps_or_the_clock_whichever_is_further():
    config = TrainConfig("out", max_steps=100, max_minutes=1.0, warmup_steps=20)
    assert config.warmup == 0.2
    assert config.progress(25, 6.0) == 0.25
    assert config.progress(25, 45.0) == 0.75
    assert config.progress(25, 90.0) == 1.0
    assert TrainConfig("out", max_minutes=1.0).progress(10**6, 15.0) == 0.25
