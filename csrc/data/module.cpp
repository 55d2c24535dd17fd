// bigfast._data: the checks and bindings of the data helpers. NumPy in, NumPy out, the GIL
// released; bad input raises ValueError (a wrong type TypeError), so the functions below can trust
// theirs.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <string>

#include "data/mask.h"
#include "data/pairs.h"
#include "data/random.h"
#include "data/rows.h"

namespace py = pybind11;

namespace bigfast::data {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kMaxDraw = (int64_t{1} << 32) - 1;  // what Stream::below can choose from

[[noreturn]] void fail(const std::string& message) { throw py::value_error(message); }

void check_range(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high)
    fail(std::string(name) + ": expected " + std::to_string(low) + " to " + std::to_string(high) +
         ", got " + std::to_string(value));
}

void check_probability(const char* name, double p) {
  if (!(p >= 0.0 && p <= 1.0))
    fail(std::string(name) + ": expected 0 to 1, got " + std::to_string(p));
}

// batch * width values of 8 bytes must be an allocation that makes sense, and samples count to
// 2^63.
void check_batch(int64_t batch, int64_t width, int64_t position) {
  check_range("batch", batch, 1, (int64_t{1} << 40) / std::max<int64_t>(width, 1));
  check_range("position", position, 0, kMax / batch - 1);
}

template <typename T>
const T* view(const char* name, const py::array& array, int ndim) {
  if (!py::isinstance<py::array_t<T>>(array) || !(array.flags() & py::array::c_style))
    fail(std::string(name) + ": expected a C-contiguous array of " +
         py::cast<std::string>(py::str(py::dtype::of<T>())) + ", got " +
         py::cast<std::string>(py::str(array.dtype())));
  if (array.ndim() != ndim)
    fail(std::string(name) + ": expected " + std::to_string(ndim) + " dimensions, got " +
         std::to_string(array.ndim()));
  return static_cast<const T*>(array.data());
}

using Ids = py::array_t<int64_t>;

Ids make_ids(int64_t rows, int64_t columns) { return Ids({rows, columns}); }

// Calls f with the shard's tokens as what they are, uint16 or uint32.
template <typename F>
void with_tokens(const py::array& tokens, F f) {
  if (py::isinstance<py::array_t<uint16_t>>(tokens)) {
    const uint16_t* data = view<uint16_t>("tokens", tokens, 1);
    py::gil_scoped_release release;
    f(data);
  } else {
    const uint32_t* data = view<uint32_t>("tokens", tokens, 1);
    py::gil_scoped_release release;
    f(data);
  }
}

Ids py_sample_order(int64_t count, int64_t batch, int64_t position, uint64_t seed) {
  check_range("count", count, 1, kMax);
  check_batch(batch, 1, position);
  Ids out(batch);
  int64_t* samples = out.mutable_data();
  py::gil_scoped_release release;
  Order order(count, seed);
  for (int64_t b = 0; b < batch; ++b)
    samples[b] = order(static_cast<uint64_t>(position) * batch + b);
  return out;
}

Ids py_blocks(const py::array& tokens, int64_t content, int64_t batch, int64_t position,
              uint64_t seed, std::optional<int64_t> cls, std::optional<int64_t> sep) {
  const int64_t total = tokens.size();
  check_range("content", content, 1, kMaxDraw);
  if (total < content)
    fail("tokens: a block of " + std::to_string(content) + " tokens does not fit into " +
         std::to_string(total));
  const int64_t width = content + cls.has_value() + sep.has_value();
  check_batch(batch, width, position);
  if (cls) check_range("cls", *cls, 0, kMaxDraw);
  if (sep) check_range("sep", *sep, 0, kMaxDraw);
  Ids rows = make_ids(batch, width);
  int64_t* out = rows.mutable_data();
  with_tokens(tokens, [&](const auto* data) {
    blocks(data, total, out, content, batch, position, seed, cls.value_or(-1), sep.value_or(-1));
  });
  return rows;
}

py::tuple py_mask_tokens(const py::array& input_ids, const py::array& special, int64_t mask_id,
                         int64_t vocab_size, double probability, int64_t position, uint64_t seed) {
  const int64_t* ids = view<int64_t>("input_ids", input_ids, 2);
  const int64_t* never = view<int64_t>("special", special, 1);
  check_range("vocab_size", vocab_size, 1, kMaxDraw);
  check_range("mask_id", mask_id, 0, vocab_size - 1);
  check_range("position", position, 0, kMax);
  check_probability("probability", probability);
  for (int64_t i = 0; i < special.size(); ++i) {
    check_range("special", never[i], 0, vocab_size - 1);
    if (i > 0 && never[i] <= never[i - 1]) fail("special: expected sorted, distinct ids");
  }
  if (special.size() == vocab_size) fail("special: every token of the vocabulary is special");
  Ids out = make_ids(input_ids.shape(0), input_ids.shape(1));
  Ids labels = make_ids(input_ids.shape(0), input_ids.shape(1));
  int64_t *o = out.mutable_data(), *l = labels.mutable_data();
  {
    py::gil_scoped_release release;
    mask_tokens(ids, o, l, input_ids.size(), never, special.size(), mask_id, vocab_size,
                probability, seed, position);
  }
  return py::make_tuple(out, labels);
}

Ids py_chunk_documents(const py::array& documents, const py::array& sentences, int64_t separator,
                       int64_t length) {
  const int64_t* d = view<int64_t>("documents", documents, 1);
  const int64_t* s = view<int64_t>("sentences", sentences, 1);
  check_range("documents", documents.size(), 1, kMax);
  check_range("separator", separator, 0, 1);
  check_range("length", length, 2, kMaxDraw);
  std::vector<Chunk> chunks;
  {
    py::gil_scoped_release release;
    chunks = chunk_documents(d, documents.size() - 1, s, sentences.size(), separator, length);
  }
  Ids out = make_ids(chunks.size(), 4);
  if (!chunks.empty())
    std::memcpy(out.mutable_data(), chunks.data(), chunks.size() * sizeof(Chunk));
  return out;
}

py::tuple py_sentence_pairs(const py::array& chunks, const py::array& sentences, int64_t length,
                            int64_t batch, int64_t position, uint64_t seed,
                            double short_probability) {
  const int64_t* c = view<int64_t>("chunks", chunks, 2);
  const int64_t* s = view<int64_t>("sentences", sentences, 1);
  if (chunks.shape(1) != 4)
    fail("chunks: expected 4 columns, got " + std::to_string(chunks.shape(1)));
  check_range("chunks", chunks.shape(0), 1, kMaxDraw);
  check_range("length", length, 2, kMaxDraw);
  check_batch(batch, 4, position);
  check_probability("short_probability", short_probability);
  Ids spans = make_ids(batch, 4), labels(batch);
  int64_t *p = spans.mutable_data(), *l = labels.mutable_data();
  {
    py::gil_scoped_release release;
    sentence_pairs(reinterpret_cast<const Chunk*>(c), chunks.shape(0), s, sentences.size(), p, l,
                   batch, length, position, seed, short_probability);
  }
  return py::make_tuple(spans, labels);
}

py::tuple py_span_rows(const py::array& tokens, const py::array& spans, int64_t seq, int64_t cls,
                       int64_t sep, int64_t pad) {
  const int64_t* s = view<int64_t>("spans", spans, 2);
  const int64_t total = tokens.size(), batch = spans.shape(0), width = spans.shape(1);
  if (width != 2 && width != 4)
    fail("spans: expected 2 or 4 columns, got " + std::to_string(width));
  check_range("seq", seq, width == 4 ? 5 : 3, (int64_t{1} << 40) / std::max<int64_t>(batch, 1));
  for (auto [name, id] : {std::pair{"cls", cls}, {"sep", sep}, {"pad", pad}})
    check_range(name, id, 0, kMaxDraw);
  Ids ids = make_ids(batch, seq), mask = make_ids(batch, seq), types = make_ids(batch, seq);
  int64_t *i = ids.mutable_data(), *m = mask.mutable_data(), *t = types.mutable_data();
  with_tokens(tokens, [&](const auto* data) {
    std::fill_n(i, batch * seq, pad);
    std::fill_n(m, batch * seq, 0);
    std::fill_n(t, batch * seq, 0);
    span_rows(data, total, s, width, i, m, t, batch, seq, cls, sep);
  });
  return py::make_tuple(ids, mask, types);
}

}  // namespace
}  // namespace bigfast::data

// Shapes, meanings and the same results in NumPy: bigfast/data/reference.py.
PYBIND11_MODULE(_data, m) {
  using namespace bigfast::data;
  using py::literals::operator""_a;
  m.doc() = "Packing, masking and indexing of token shards; documented in bigfast.data.reference";
  m.def("sample_order", &py_sample_order, "count"_a, "batch"_a, "position"_a, "seed"_a);
  m.def("blocks", &py_blocks, "tokens"_a, "content"_a, "batch"_a, "position"_a, "seed"_a,
        "cls"_a = py::none(), "sep"_a = py::none());
  m.def("mask_tokens", &py_mask_tokens, "input_ids"_a, "special"_a, "mask_id"_a, "vocab_size"_a,
        "probability"_a, "position"_a, "seed"_a);
  m.def("chunk_documents", &py_chunk_documents, "documents"_a, "sentences"_a, "separator"_a,
        "length"_a);
  m.def("sentence_pairs", &py_sentence_pairs, "chunks"_a, "sentences"_a, "length"_a, "batch"_a,
        "position"_a, "seed"_a, "short_probability"_a);
  m.def("span_rows", &py_span_rows, "tokens"_a, "spans"_a, "seq"_a, "cls"_a, "sep"_a, "pad"_a);
}
