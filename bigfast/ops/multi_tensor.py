"""What the optimizer steps share: the checks of their lists, who can serve, how bf16 is rounded.

A step computes p in fp32. Where a bf16 parameter has a master, the master takes p and the parameter
is rounded from it. Where it has none, rounding to nearest loses every update below half a unit in
its last place, at each step again; with a `seed` it is rounded down or up by chance instead, right
on average (Gupta et al., "Deep learning with limited numerical precision", ICML 2015):

    bits(p) + u with the low 16 bits cut off, u uniform in 0..65535; NaN and Inf stay

u is Philox's (dropout.py) under a key per step: element i of tensor `plane` of the list has number
k = i % 8 of the call with word0 = i // 8 mod 2^32 and row = i // 8 // 2^32.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from . import dtypes
from .dropout import check_seed, philox

Tensors = Sequence[Tensor]


# -- the reference's share -------------------------------------------------------------------------


def round_stochastically(p: Tensor, seed: Tensor, plane: int) -> Tensor:
    """p, rounded to fp32 and then to bf16 by chance, as tensor number `plane` of a step."""
    p = p.float()
    groups = torch.arange((p.numel() + 7) // 8, device=p.device)
    numbers = philox(groups, groups >> 32, torch.full_like(groups, plane), seed)
    numbers = numbers.flatten()[: p.numel()].view(p.shape).int()
    rounded = ((p.view(torch.int32) + numbers) & -65536).view(torch.float32)
    return torch.where(p.isfinite(), rounded, p).bfloat16()


def read(
    param: Tensor,
    grad: Tensor,
    master: Tensor | None,
    dtype: torch.dtype,
    grad_scale: Tensor | None,
    maximize: bool,
) -> tuple[Tensor, Tensor]:
    """p and g of one tensor, in the dtype of its state."""
    g = grad.to(dtype)
    if grad_scale is not None:
        g = g * grad_scale.reshape(()).to(dtype)
    return (param if master is None else master).to(dtype), -g if maximize else g


def skips(found_inf: Tensor | None) -> bool:
    """Whether a gradient was infinite, so that nothing may be written."""
    return found_inf is not None and float(found_inf) != 0


def write(p: Tensor, param: Tensor, master: Tensor | None, seed: Tensor | None, plane: int) -> None:
    """Give p to the master if there is one, and, rounded, to the parameter."""
    if master is not None:
        master.copy_(p)
    if seed is not None and param.dtype == torch.bfloat16:
        p = round_stochastically(p, seed, plane)
    param.copy_(p)


# -- the public functions' share -------------------------------------------------------------------


def check(
    params: Tensors,
    lists: Mapping[str, Tensors],
    masters: Tensors | None,
    seed: Tensor | None,
    step: Tensor | int = 1,
    **numbers: Tensor | float | None,
) -> None:
    """Raise ValueError or TypeError, naming the argument, for what is not a step's."""
    for name, tensors in {**lists, **({"masters": masters} if masters else {})}.items():
        if len(tensors) != len(params):
            raise ValueError(
                f"{name} must have one tensor per parameter ({len(params)}), got {len(tensors)}"
            )
        for i, (param, tensor) in enumerate(zip(params, tensors)):
            if tensor.shape != param.shape:
                raise ValueError(
                    f"{name}[{i}] must have its parameter's shape {tuple(param.shape)}, "
                    f"got {tuple(tensor.shape)}"
                )
            if tensor.layout != torch.strided:
                raise ValueError(f"{name}[{i}] must be dense, got {tensor.layout}")
    for i, param in enumerate(params):
        if not param.is_floating_point():
            raise TypeError(f"params[{i}] must be floating point, got {param.dtype}")
    if not isinstance(step, Tensor) and step < 1:
        raise ValueError(f"step must be counted from 1, got {step}")
    for name, number in {"step": step, **numbers}.items():
        if not isinstance(number, Tensor):
            continue
        if number.numel() != 1:
            raise ValueError(f"{name} must be one number, got shape {tuple(number.shape)}")
        if number.device.type != "cpu" and params and number.device != params[0].device:
            raise ValueError(
                f"{name} must be on the CPU or on {params[0].device}, got {number.device}"
            )
    if seed is not None:
        _check_rounding(params, masters, seed)


def _check_rounding(params: Tensors, masters: Tensors | None, seed: Tensor) -> None:
    check_seed(seed)
    if masters:
        raise ValueError("seed has no use with masters: what is rounded from them is to nearest")
    for i, param in enumerate(params):
        if param.dtype == torch.float16:
            raise ValueError(f"seed rounds bfloat16 parameters; params[{i}] is {param.dtype}")


def why_not_native(
    params: Tensors, grads: Tensors, states: Mapping[str, Tensors], masters: Tensors | None
) -> str | None:
    """Why the C++ steps cannot take these lists; `states` by name."""
    found = {t.dtype for t in (*params, *grads)}
    return dtypes.why_not_native(*found) or _why_not_laid_out(params, states, masters)


def why_not_triton(
    params: Tensors, grads: Tensors, states: Mapping[str, Tensors], masters: Tensors | None
) -> str | None:
    """Why the Triton steps cannot take these lists; `states` by name."""
    found = {t.dtype for t in (*params, *grads)}
    return _why_not_on_gpu(params, grads, states, masters) or dtypes.why_not_triton(
        params[0].device, *found
    )


def why_not_cuda(
    params: Tensors, grads: Tensors, states: Mapping[str, Tensors], masters: Tensors | None
) -> str | None:
    """Why the CUDA C++ steps cannot take these lists; `states` by name."""
    found = {t.dtype for t in (*params, *grads)}
    return _why_not_on_gpu(params, grads, states, masters) or dtypes.why_not_cuda(*found)


def _why_not_on_gpu(
    params: Tensors, grads: Tensors, states: Mapping[str, Tensors], masters: Tensors | None
) -> str | None:
    if not params:
        return "no tensor was given"
    device = params[0].device
    for t in (*params, *grads):
        if t.device != device:
            return f"all must be on one device, not on {device} and {t.device}"
    return _why_not_laid_out(params, states, masters)


def _why_not_laid_out(
    params: Tensors, states: Mapping[str, Tensors], masters: Tensors | None
) -> str | None:
    # Where all are dense and laid out alike the layout does not matter; this is the usual case.
    for param in params:
        if not param.is_contiguous():
            return "a parameter is not contiguous"
    for name, tensors in {**states, "masters": masters or ()}.items():
        for param, t in zip(params, tensors):
            if t.dtype != torch.float32 or not t.is_contiguous():
                return f"{name} must be contiguous float32"
            if t.device != param.device:
                return f"{name} must be on {param.device}, not on {t.device}"
    return None


def number_tensor(number: Tensor | float) -> Tensor:
    """A number of a step as native ops take it."""
    return number if isinstance(number, Tensor) else torch.tensor(number, dtype=torch.float64)
