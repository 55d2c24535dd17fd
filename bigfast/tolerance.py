"""The one tolerance policy: of the tests, of the benchmarks and of `bigfast verify`.

Against fp64 truth, an error is at most twice the error of plain torch in the same dtype, plus half
a unit in the last place of the largest element: the rounding of the result itself, which no
implementation escapes. It holds for the largest error and for the root mean square of errors. NaN
and Inf must stand exactly where truth has them.
"""

import math

import torch
from torch import Tensor

FACTOR = 2.0


def excess(ours: Tensor, plain: Tensor, truth: Tensor) -> dict[str, float]:
    """Error over allowed error, {"max": ..., "rms": ...}: the policy holds where both are <= 1.

    `plain` is plain torch's result in ours' dtype, `truth` the fp64 one; all of one shape. Infinite
    where NaN or Inf differ from truth.
    """
    half_ulp = torch.finfo(ours.dtype).eps / 2
    ours, plain, truth = (t.detach().double() for t in (ours, plain, truth))
    finite = truth.isfinite()
    if not bool(finite.all()):
        infinite = truth.isinf()
        same = torch.equal(ours.isnan(), truth.isnan())
        if not same or not torch.equal(ours[infinite], truth[infinite]):
            return {"max": math.inf, "rms": math.inf}
        ours, plain, truth = ours[finite], plain[finite], truth[finite]
    if ours.numel() == 0:
        return {"max": 0.0, "rms": 0.0}
    norm = torch.linalg.vector_norm
    sizes = {"max": lambda t: norm(t, math.inf), "rms": lambda t: norm(t) / t.numel() ** 0.5}
    wrong, plainly_wrong = ours - truth, plain - truth
    result = {}
    for name, size in sizes.items():
        error = float(size(wrong))
        allowed = FACTOR * float(size(plainly_wrong)) + half_ulp * float(size(truth))
        # An infinite error of ours is never allowed, whatever plain torch does.
        failed = not math.isfinite(error) or (error > 0 and allowed == 0)
        result[name] = math.inf if failed else error / allowed if error else 0.0
    return result
