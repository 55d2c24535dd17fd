"""BIGFAST_SWAP=1: transformers' models are swapped as they are made, without a line in the script.

torch calls `start` at the end of its own import (the entry point `torch.backends` in
pyproject.toml): in a script, in each process of torchrun and accelerate, in spawned workers and in
notebooks alike, with no file of ours in site-packages that Python would run. Without the variable
it returns at once. With it, transformers' `PreTrainedModel` is watched as soon as it is imported:
a model is swapped where `from_pretrained` returns it, its weights loaded and on their device, and
where its constructor ends (`post_init`) on any device but "meta".
"""

import functools
import importlib.util
import os
import sys
import traceback
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

VARIABLE = "BIGFAST_SWAP"
_BASE = "transformers.modeling_utils"
_said: set[str] = set()


def start() -> None:
    """What the variable asks for: nothing by default and for 0, all fusions for 1, or those named,
    as in BIGFAST_SWAP=attention,norm. Raises ValueError for another name."""
    value = os.environ.get(VARIABLE, "")
    if value in ("", "0"):
        return
    flags = _flags(value)
    if not _watch(flags):
        sys.meta_path.insert(0, _Finder(flags))


def _flags(value: str) -> dict[str, bool]:
    """The keyword arguments of `swap`."""
    if value == "1":
        return {}
    known = ("attention", "norm", "mlp", "linear", "embeddings", "loss", "unpad")
    asked = value.split(",")
    for name in asked:
        if name not in known:
            raise ValueError(f"{VARIABLE}: {name!r} is not one of 0, 1, {', '.join(known)}")
    return {name: name in asked for name in known}


class _Finder(MetaPathFinder):
    """Watches PreTrainedModel once it is there: behind its own import or, where torch was first
    imported in the middle of that, behind the import of a model."""

    def __init__(self, flags: dict[str, bool]) -> None:
        self.flags = flags

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != _BASE and not name.startswith("transformers.models."):
            return None
        sys.meta_path.remove(self)  # or it would be asked again
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        loader = spec and spec.loader
        if loader is None or not hasattr(loader, "exec_module"):
            return spec
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path and _watch(self.flags):
                sys.meta_path.remove(self)

        loader.exec_module = exec_module  # type: ignore[method-assign]  # this module's loader alone
        return spec


def _watch(flags: dict[str, bool]) -> bool:
    """Wraps `from_pretrained` and `post_init`, once; False where they are not defined yet."""
    base = getattr(sys.modules.get(_BASE), "PreTrainedModel", None)
    if base is None:
        return False
    if hasattr(base, "_bigfast_watched"):
        return True
    base._bigfast_watched = True
    load, post_init = base.__dict__["from_pretrained"].__func__, base.post_init

    @functools.wraps(load)
    def from_pretrained(cls, *args, **kwargs):
        loaded = load(cls, *args, **kwargs)
        _swap(loaded[0] if isinstance(loaded, tuple) else loaded, flags)  # with its loading info
        return loaded

    @functools.wraps(post_init)
    def swapping_post_init(self):
        post_init(self)
        if not any(parameter.is_meta for parameter in self.parameters()):
            _swap(self, flags)

    base.from_pretrained = classmethod(from_pretrained)
    base.post_init = swapping_post_init
    return True


def _swap(model: Any, flags: dict[str, bool]) -> None:
    """Swaps the model, and says so; what cannot be swapped stays stock, which is said too."""
    from bigfast.hf.swap import FUSIONS, swap

    name = type(model).__name__
    try:
        report = swap(model, **flags)
        counts = [f"{f} {len(report.swapped[f])}" for f in FUSIONS if f in report.swapped]
        text = f"{name} swapped: {', '.join(counts) or 'nothing'}"
    except ValueError as error:
        text = f"{name} stays stock: {error}"
    except Exception:  # a script that asked for nothing must not fail
        text = f"{name} stays stock: {traceback.format_exc()}"
    if text not in _said:
        _said.add(text)
        print(f"bigfast: {text}", file=sys.stderr)
