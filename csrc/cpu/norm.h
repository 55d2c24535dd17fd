// The CPU kernels of layer_norm and rms_norm, which share one body (norm.inl).
#pragma once

#include "args/norm.h"
#include "cpu/isa.h"
#include "cpu/types.h"

namespace bigfast::cpu {

BIGFAST_KERNEL(layer_norm_fwd, NormForward)
BIGFAST_KERNEL(layer_norm_bwd, NormBackward)
BIGFAST_KERNEL(rms_norm_fwd, NormForward)
BIGFAST_KERNEL(rms_norm_bwd, NormBackward)

}  // namespace bigfast::cpu
