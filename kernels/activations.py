"""Activations v c(v): their c, and v c'(v), so that the derivative is c + v c'.

    silu        c = sigmoid(v)
    gelu        c = Phi(v), the normal distribution function
    gelu_tanh   c = sigmoid(2 u),   u = sqrt(2/pi) (v + 0.044715 v^3)

Phi(-a) = e^(-a^2/2) t P(t), t = 1 / (1 + p a), for a >= 0: the form of Abramowitz and Stegun
7.1.26, with the fit of csrc/cpu/gelu.inl, which leaves 4e-9 of Phi and, in the tail, a thousandth
of it; 1 + erf(v / sqrt(2)) would cancel there. Everything is fp32.
"""

import triton
import triton.language as tl


@triton.jit
def gate(v, ACTIVATION: tl.constexpr):
    """c(v) and v c'(v)."""
    if ACTIVATION == "gelu":
        e = tl.exp2(v * v * -0.72134752044)  # e^(-v^2/2)
        t = 1.0 / (1.0 + 0.325 * tl.abs(v))
        p = 0.0466360059 * t - 0.235061257
        p = p * t + 0.377102278
        p = p * t - 0.134269558
        p = p * t + 0.203134941
        p = p * t + 0.111135503
        p = p * t + 0.131322091
        tail = e * (p * t)
        c = tl.where(v < 0.0, tail, 1.0 - tail)
        slope = v * (0.3989422804 * e)
    else:
        # e = e^(-|2 u|), or e^(-|v|): tail = sigmoid of that negative number, and c (1 - c) is
        # tail / (1 + e), without cancellation for either sign.
        if ACTIVATION == "gelu_tanh":
            square = tl.minimum(v * v, 1e4)  # past 100 it changes nothing, but could overflow
            e = tl.exp2(tl.abs(v) * (square * -0.102943240 - 2.30220820))
            du = square * 0.214064449 + 1.59576912
        else:
            e = tl.exp2(tl.abs(v) * -1.44269504089)
            du = 1.0
        once = 1.0 / (1.0 + e)
        tail = e * once
        c = tl.where(v < 0.0, tail, once)
        slope = v * (tail * once) * du
    return c, slope
