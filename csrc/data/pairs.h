// Next-sentence pairs (Devlin et al. 2018, 3.1) without a history: documents are cut once into
// chunks of sentences; sample g of a shuffled epoch is a chunk, split at a sentence into A and B,
// and for half of them B is replaced by text of another document.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "data/random.h"
#include "data/rows.h"

namespace bigfast::data {

// First sentence, sentence after the last, token after the last, token after the document's last.
struct Chunk {
  int64_t first, end, stop, document_stop;
};
static_assert(sizeof(Chunk) == 4 * sizeof(int64_t), "read as an int64 array (n, 4)");

// Consecutive sentences of one document until they hold `length` tokens, two at least. A single
// sentence left at a document's end has no next one and is not used.
inline std::vector<Chunk> chunk_documents(const int64_t* documents,
                                          int64_t num_documents,  // (num + 1)
                                          const int64_t* sentences,
                                          int64_t num_sentences,  // starts
                                          int64_t separator,      // tokens at each document's end
                                          int64_t length) {
  std::vector<Chunk> chunks;
  int64_t s = 0;
  for (int64_t d = 0; d < num_documents; ++d) {
    const int64_t begin = documents[d], stop = documents[d + 1] - separator;
    if (begin < 0 || stop < begin)
      throw std::invalid_argument("documents: offset " + std::to_string(d + 1) + " is " +
                                  std::to_string(documents[d + 1]) + " after " +
                                  std::to_string(begin));
    int64_t first = s;
    for (; s < num_sentences && sentences[s] < stop; ++s) {
      const int64_t next = s + 1 < num_sentences ? std::min(sentences[s + 1], stop) : stop;
      if (sentences[s] < begin || next <= sentences[s])
        throw std::invalid_argument("sentences: start " + std::to_string(s) + " is " +
                                    std::to_string(sentences[s]) + ", out of order");
      if (next - sentences[first] >= length && s > first) {
        chunks.push_back({first, s + 1, next, stop});
        first = s + 1;
      }
    }
    if (s - first >= 2) chunks.push_back({first, s, stop, stop});
  }
  return chunks;
}

// spans (batch, 4) of tokens and labels (batch): 0 where B follows A, 1 where it is from elsewhere.
// A random B is as long as the true one would be (its document permitting), so that lengths do not
// give the label away. A keeps its end and B its beginning: the place where they meet.
inline void sentence_pairs(const Chunk* chunks, int64_t num_chunks, const int64_t* sentences,
                           int64_t num_sentences, int64_t* spans, int64_t* labels, int64_t batch,
                           int64_t length, int64_t position, uint64_t seed,
                           double short_probability) {
  const auto split = [&](const Chunk& c, Stream draw, uint64_t i) {
    if (c.first < 0 || c.end - c.first < 2 || c.end > num_sentences)
      throw std::invalid_argument("chunks: sentences " + std::to_string(c.first) + ".." +
                                  std::to_string(c.end) + " are not two or more of " +
                                  std::to_string(num_sentences));
    return sentences[c.first + 1 + draw.below(i, c.end - c.first - 1)];
  };
  const uint64_t shorten = threshold(short_probability);
  const Stream root = Stream{seed}.at(kPair);
  Order order(num_chunks, seed);
  for (int64_t b = 0; b < batch; ++b, spans += 4) {
    const uint64_t sample = static_cast<uint64_t>(position) * batch + b;
    const Chunk& chunk = chunks[order(sample)];
    const Stream draw = root.at(sample);
    const int64_t middle = split(chunk, draw, 0), begin = sentences[chunk.first];
    int64_t start = middle, stop = chunk.stop;
    labels[b] = static_cast<int64_t>(draw.bits(1) >> 63);
    if (labels[b]) {
      // Chunks of one document lie side by side: skip those of this one.
      const auto [low, high] = std::equal_range(
          chunks, chunks + num_chunks, chunk,
          [](const Chunk& x, const Chunk& y) { return x.document_stop < y.document_stop; });
      const int64_t others = num_chunks - (high - low);
      if (others <= 0)
        throw std::invalid_argument(
            "chunks: a random next sentence needs two documents with two sentences each");
      int64_t other = draw.below(2, others);
      if (other >= low - chunks) other += high - low;
      start = split(chunks[other], draw, 3);
      stop = std::min(start + (chunk.stop - middle), chunks[other].document_stop);
    }
    if (middle < begin || stop < start)
      throw std::invalid_argument("chunks: tokens " + std::to_string(begin) + ".." +
                                  std::to_string(middle) + ".." + std::to_string(stop) +
                                  " are out of order");
    int64_t limit = length;
    if (draw.bits(4) >> 32 < shorten) limit = 2 + draw.below(5, length - 1);
    const Lengths n = truncate(middle - begin, stop - start, limit);
    spans[0] = middle - n.a;
    spans[1] = middle;
    spans[2] = start;
    spans[3] = start + n.b;
  }
}

}  // namespace bigfast::data
