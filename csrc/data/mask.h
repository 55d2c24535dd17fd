// BERT's masking (Devlin et al. 2018, 3.1): each ordinary token is picked with probability p; of
// the picked 80 % become [MASK], 10 % a random ordinary token, 10 % stay; labels are -100
// elsewhere.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "data/random.h"

namespace bigfast::data {

// Token i draws bits(i): the high word picks it, the low word says what becomes of it; a random
// token draws bits(count + i).
inline void mask_tokens(const int64_t* ids, int64_t* out, int64_t* labels,
                        int64_t count,  // (count)
                        const int64_t* special,
                        int64_t num_special,  // sorted, distinct, in [0, vocab)
                        int64_t mask_id, int64_t vocab, double p, uint64_t seed, int64_t position) {
  constexpr uint64_t kToMask = 3435973837u;    // threshold(0.8)
  constexpr uint64_t kToRandom = 3865470566u;  // threshold(0.9)
  const uint64_t pick = threshold(p);
  const Stream stream = Stream{seed}.at(kMask).at(position);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t id = ids[i];
    if (id < 0 || id >= vocab)
      throw std::invalid_argument("input_ids: " + std::to_string(id) +
                                  " is outside the vocabulary of " + std::to_string(vocab));
    out[i] = id;
    labels[i] = -100;
    const uint64_t bits = stream.bits(i);
    if (bits >> 32 >= pick || std::binary_search(special, special + num_special, id)) continue;
    labels[i] = id;
    const uint64_t fate = bits & 0xFFFFFFFFu;
    if (fate < kToMask) {
      out[i] = mask_id;
    } else if (fate < kToRandom) {
      int64_t other = stream.below(count + i, vocab - num_special);
      for (int64_t s = 0; s < num_special && special[s] <= other; ++s) ++other;
      out[i] = other;
    }
  }
}

}  // namespace bigfast::data
