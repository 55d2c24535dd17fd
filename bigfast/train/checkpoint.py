"""Checkpoints: folders `checkpoint-<step>` that are either whole or not there.

    model.safetensors, config.json     as the model's own save_pretrained writes them
    model_state.safetensors            only what the former does not hold bit for bit, by state-dict
                                       name (layouts transposed on disk, adapters over a base)
    tokenizer files                    where a tokenizer is given
    optimizer.safetensors              "<parameter>/<key>": exp_avg, exp_avg_sq, step, master
    trainer_state.json                 step, data position, clock, random generators, settings

All of it is written into a hidden temporary folder, flushed to the disk, and renamed: a save killed
at any point leaves the former checkpoints as they were. Nothing is pickled.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

NAME = re.compile(r"checkpoint-\d+")
TEMPORARY = ".tmp-"
STATE_FILE = "trainer_state.json"

# -- folders ---------------------------------------------------------------------------------------


def checkpoints(output_dir: str | Path) -> list[Path]:
    """The whole checkpoints in `output_dir`, by rising step."""
    found = [path for path in Path(output_dir).glob("checkpoint-*") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def remove_partial(output_dir: str | Path) -> None:
    """Delete what killed saves and killed deletions have left."""
    for path in Path(output_dir).glob(f"{TEMPORARY}checkpoint-*"):
        shutil.rmtree(path)


def prune(output_dir: str | Path, keep: int) -> None:
    """Delete all but the last `keep` checkpoints, out of sight: never is half a one to be seen."""
    for path in checkpoints(output_dir)[:-keep]:
        doomed = path.with_name(TEMPORARY + path.name)
        path.rename(doomed)
        shutil.rmtree(doomed)


def _flush_tree(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        flush(path)


def flush(path: Path) -> None:
    """Return when the file or folder `path` is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- save and load ---------------------------------------------------------------------------------


def save_checkpoint(
    output_dir: str | Path,
    step: int,
    *,
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    optimizer: Optimizer,
    state: dict[str, Any],
    tokenizer: Any = None,
) -> Path:
    """Write `checkpoint-<step>` and return its path.

    `parameters` are those that `optimizer` steps, by name; `state` goes into trainer_state.json and
    must be JSON. `tokenizer` has save_pretrained (transformers) or save (tokenizers).
    """
    output_dir = Path(output_dir)
    final = output_dir / f"checkpoint-{step}"
    temporary = final.with_name(TEMPORARY + final.name)
    remove_partial(output_dir)
    temporary.mkdir(parents=True)
    _save_model(model, temporary)
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(temporary)
    elif tokenizer is not None:
        tokenizer.save(str(temporary / "tokenizer.json"))
    _save_optimizer(optimizer, parameters, temporary)
    device = next(iter(parameters.values())).device
    state = {**state, "step": step, "random": random_state(device)}
    (temporary / STATE_FILE).write_text(json.dumps(state, indent=1))
    _flush_tree(temporary)
    temporary.rename(final)
    flush(output_dir)
    return final


def read_state(path: str | Path) -> dict[str, Any]:
    """The `state` given to `save_checkpoint`, with "step" and "random" (see set_random_state)."""
    file = Path(path) / STATE_FILE
    if not file.is_file():
        raise ValueError(f"no checkpoint at {str(path)!r}: it has no {STATE_FILE}")
    return json.loads(file.read_text())


def load_tensors(
    path: str | Path,
    *,
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    optimizer: Optimizer,
) -> None:
    """Put model and optimizer, in place, where `save_checkpoint` found them, bit for bit.

    Raises ValueError if the checkpoint's tensors are not the model's by name, shape and dtype.
    """
    _load_model(model, Path(path))
    _load_optimizer(optimizer, parameters, Path(path))


def _distinct(tensors: dict[str, Any]) -> dict[str, Tensor]:
    """`tensors` under one name each: safetensors takes no second name for a tied one."""
    first: dict[tuple, str] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor):
            place = tensor.data_ptr() if tensor.numel() else name
            first.setdefault((place, tensor.shape, tensor.stride(), tensor.dtype), name)
    return {name: tensors[name].detach() for name in first.values()}


def _save_model(model: nn.Module, folder: Path) -> None:
    tensors = {name: t.contiguous() for name, t in _distinct(model.state_dict()).items()}
    file = folder / "model.safetensors"
    save_pretrained = getattr(model, "save_pretrained", None)
    if save_pretrained is None:
        save_file(tensors, file, metadata={"format": "pt"})
        return
    save_pretrained(folder)
    if file.exists():
        with safe_open(file, "pt") as saved:
            held = set(saved.keys())
            tensors = {
                name: tensor
                for name, tensor in tensors.items()
                if name not in held or not _same_bits(tensor.cpu(), saved.get_tensor(name))
            }
    if tensors:
        save_file(tensors, folder / "model_state.safetensors")


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(*(t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)))


def _load_model(model: nn.Module, folder: Path) -> None:
    saved = {}
    for name in ("model.safetensors", "model_state.safetensors"):
        if (folder / name).exists():
            saved.update(load_file(folder / name))
    for name, tensor in _distinct(model.state_dict()).items():
        _copy(tensor, saved, name, folder)


def _copy(target: Tensor, saved: dict[str, Tensor], name: str, folder: Path) -> None:
    if name not in saved:
        raise ValueError(f"{str(folder)!r} holds no tensor {name!r}: it is another model's")
    source = saved[name]
    if source.shape != target.shape or source.dtype != target.dtype:
        raise ValueError(
            f"{name!r} is {source.dtype} {tuple(source.shape)} in {str(folder)!r} and "
            f"{target.dtype} {tuple(target.shape)} in the model"
        )
    with torch.no_grad():
        target.copy_(source)


def _save_optimizer(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], folder: Path
) -> None:
    tensors, devices = {}, {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}/{key}"] = value.detach().contiguous()
            devices[key] = "cpu" if value.device.type == "cpu" else "parameter"
    save_file(
        tensors,
        folder / "optimizer.safetensors",
        metadata={"devices": json.dumps(devices, sort_keys=True)},
    )


def _load_optimizer(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], folder: Path
) -> None:
    # Not through load_state_dict: torch's casts the fp32 moments of bf16 parameters to bf16.
    with safe_open(folder / "optimizer.safetensors", "pt") as saved:
        devices = json.loads(saved.metadata()["devices"])
        for full_name in saved.keys():  # noqa: SIM118 (a safetensors file is no dict)
            name, key = full_name.rsplit("/", 1)
            if name not in parameters:
                raise ValueError(f"{str(folder)!r} has optimizer state of {name!r}, no parameter")
            parameter = parameters[name]
            device = parameter.device if devices[key] == "parameter" else "cpu"
            optimizer.state[parameter][key] = saved.get_tensor(full_name).clone().to(device)


# -- random generators -----------------------------------------------------------------------------


def random_state(device: torch.device) -> dict[str, Any]:
    """Python's, NumPy's and torch's generators (the CPU's and a CUDA `device`'s), as JSON."""
    kind, words, gauss = random.getstate()
    legacy = np.random.get_state(legacy=False)
    torch_states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        torch_states[str(device)] = torch.cuda.get_rng_state(device)
    return {
        "python": [kind, _encode(np.array(words, np.uint32)), gauss],
        "numpy": {**legacy, "state": {**legacy["state"], "key": _encode(legacy["state"]["key"])}},
        "torch": {name: _encode(state.numpy()) for name, state in torch_states.items()},
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Undo `random_state`, also after a round trip through JSON."""
    kind, words, gauss = state["python"]
    random.setstate((kind, tuple(_decode(words, np.uint32).tolist()), gauss))
    inner = state["numpy"]["state"]
    key = _decode(inner["key"], np.uint32)
    np.random.set_state({**state["numpy"], "state": {**inner, "key": key}})
    for name, text in state["torch"].items():
        torch_state = torch.from_numpy(_decode(text, np.uint8))
        if name == "cpu":
            torch.set_rng_state(torch_state)
        else:
            torch.cuda.set_rng_state(torch_state, name)


def _encode(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _decode(text: str, dtype: type) -> np.ndarray:
    return np.frombuffer(bytearray(base64.b64decode(text)), dtype)
