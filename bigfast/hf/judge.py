"""Errors of a swapped model against what the tolerance policy allows, tensor by tensor."""

import re

import torch
from torch import Tensor

from .. import tolerance
from .results import Results

# What errs once in the runs and once in what stands for the truth.
_INEXACT = tolerance.FACTOR / (tolerance.FACTOR + 1)


def judge(
    ours: Results, plains: list[Results], truth: Results, exact: bool
) -> dict[str, dict[str, float]]:
    """kind -> name -> our error over the allowed one, by the most lenient of the stock runs.

    exact: whether the truth rounds less than the runs do; where it does not, its own rounding error
    is a third of what may be seen.
    """
    errors: dict[str, dict[str, float]] = {}
    for kind, expected in truth.items():
        errors[kind] = {
            name: (1.0 if exact else _INEXACT)
            * min(
                max(tolerance.excess(*(_pooled(r[kind], names) for r in (ours, p, truth))).values())
                for p in plains
                if kind in p
            )
            for name, names in _judged(expected).items()
        }
    return errors


def _judged(truth: dict[str, Tensor]) -> dict[str, list[str]]:
    """The names of the tensors whose error is judged as one, under a name for all of them.

    These are those of one place in all layers, since the largest error of a single tensor is
    chance. Where truth vanishes (the gradient of a key's bias) what is computed is the rounding of
    terms that cancel, and has no scale of its own: it is judged with its nearest relatives that
    have one.
    """
    places: dict[str, list[str]] = {}
    for name in truth:
        places.setdefault(re.sub(r"\.\d+\.", ".*.", name), []).append(name)
    sizes = {
        place: max(float(truth[n].abs().max()) if truth[n].numel() else 0.0 for n in names)
        for place, names in places.items()
    }
    wide = all(t.dtype == torch.float64 for t in truth.values())
    floor = (1e-10 if wide else 1e-5) * max(sizes.values(), default=0.0)
    judged = {}
    for place, names in places.items():
        relatives, prefix = [], place
        while sizes[place] <= floor and prefix and not relatives:
            prefix = prefix.rpartition(".")[0]
            near = [p for p, s in sizes.items() if s > floor and p.startswith(prefix + ".")]
            relatives = [name for p in near for name in places[p]]
        judged[place] = [*names, *relatives]
    return judged


def _pooled(tensors: dict[str, Tensor], names: list[str]) -> Tensor:
    return torch.cat([tensors[name].flatten() for name in names])
