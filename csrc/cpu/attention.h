// The CPU kernels of attention.
#pragma once

#include "args/attention.h"
#include "cpu/isa.h"
#include "cpu/types.h"

namespace bigfast::cpu {

BIGFAST_KERNEL(attention_fwd, AttentionForward)
// Dense, without dropout; leaves lse alone.
BIGFAST_KERNEL(attention_decode, AttentionForward)
BIGFAST_KERNEL(attention_bwd, AttentionBackward)

}  // namespace bigfast::cpu
