// Rows of token ids cut out of a shard: contiguous blocks (causal, plain MLM) and [CLS] A [SEP] B
// [SEP].
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "data/random.h"

namespace bigfast::data {

// How many blocks of `content` tokens one epoch has. One block is given up, so that the cuts can
// start anywhere in [0, content) and move from epoch to epoch.
inline int64_t num_blocks(int64_t total, int64_t content) {
  return std::max<int64_t>(1, (total - content + 1) / content);
}

// rows (batch, content [+ cls] [+ sep]): block order(sample) of the shard for each sample of the
// batch.
template <typename Token>
void blocks(const Token* tokens, int64_t total,  // (total)
            int64_t* rows,                       // (batch, width)
            int64_t content, int64_t batch, int64_t position, uint64_t seed, int64_t cls,
            int64_t sep) {  // -1: none
  const int64_t n = num_blocks(total, content);
  const int64_t phases = std::min(content, total - n * content + 1);
  Order order(n, seed);
  for (int64_t b = 0; b < batch; ++b) {
    const uint64_t sample = static_cast<uint64_t>(position) * batch + b;
    const int64_t block = order(sample);
    const int64_t phase = order.epoch(sample / n).below(Permutation::kRounds, phases);
    if (cls >= 0) *rows++ = cls;
    rows = std::copy_n(tokens + phase + block * content, content, rows);
    if (sep >= 0) *rows++ = sep;
  }
}

struct Lengths {
  int64_t a, b;
};

// The longer of the two gives way first, as in BERT: what is left of a and b within `limit`.
inline Lengths truncate(int64_t a, int64_t b, int64_t limit) {
  if (a + b <= limit) return {a, b};
  if (2 * b <= limit) return {limit - b, b};
  if (2 * a <= limit) return {a, limit - a};
  return {limit - limit / 2, limit / 2};
}

// [CLS] A [SEP] for spans (batch, 2), [CLS] A [SEP] B [SEP] for spans (batch, 4); too long ones
// lose their ends. ids, mask and types are (batch, seq) and hold pad, 0, 0 on entry.
template <typename Token>
void span_rows(const Token* tokens, int64_t total,   // (total)
               const int64_t* spans, int64_t width,  // (batch, width): start, stop [, start, stop]
               int64_t* ids, int64_t* mask, int64_t* types, int64_t batch, int64_t seq, int64_t cls,
               int64_t sep) {
  const bool pair = width == 4;
  for (int64_t b = 0; b < batch; ++b, spans += width, ids += seq, mask += seq, types += seq) {
    for (int64_t k = 0; k < width; k += 2)
      if (spans[k] < 0 || spans[k] > spans[k + 1] || spans[k + 1] > total)
        throw std::invalid_argument("spans: row " + std::to_string(b) + " holds " +
                                    std::to_string(spans[k]) + ".." + std::to_string(spans[k + 1]) +
                                    ", which is not within the " + std::to_string(total) +
                                    " tokens");
    const Lengths n =
        truncate(spans[1] - spans[0], pair ? spans[3] - spans[2] : 0, seq - (pair ? 3 : 2));
    int64_t* out = ids;
    *out++ = cls;
    out = std::copy_n(tokens + spans[0], n.a, out);
    *out++ = sep;
    if (pair) {
      int64_t* second = out;
      out = std::copy_n(tokens + spans[2], n.b, out);
      *out++ = sep;
      std::fill(types + (second - ids), types + (out - ids), 1);
    }
    std::fill_n(mask, out - ids, 1);
  }
}

}  // namespace bigfast::data
