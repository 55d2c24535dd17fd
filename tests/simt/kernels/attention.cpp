// attention's kernels in the emulator against plain loops in fp64, with AddressSanitizer and the
// access log; tests/ops/test_attention.py has the rest. Prints "right", or what is wrong.
#include "cuda/attention.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/device.cuh"

namespace bigfast::cuda {
namespace {

using Ints = std::vector<int32_t>;
using Doubles = std::vector<double>;

struct Case {
  const char* name;
  int64_t batch, queries, keys, heads, kv_heads, dim;
  Ints ends = {}, ends_k = {}, used = {};
  int64_t left = 1 << 30, right = 1 << 30;
  int threshold = 0;
  bool alibi = false;
  int gap = 0;  // elements between tokens: rows that are not aligned
  int capability = 80;
};
constexpr int kCausal = 0;

const Case kCases[] = {
    {"one tile of keys", 2, 17, 17, 2, 2, 64},
    {"all keys of one block", 1, 128, 128, 1, 1, 64},
    {"one more than a tile", 1, 65, 65, 2, 1, 32},
    {"wide heads", 1, 33, 90, 2, 1, 128},
    {"a head between", 1, 20, 40, 1, 1, 40},
    {"causal", 1, 70, 70, 2, 1, 64, {}, {}, {}, 1 << 30, kCausal},
    {"causal, rows without keys", 1, 50, 20, 1, 1, 32, {}, {}, {}, 1 << 30, kCausal},
    {"window", 1, 80, 100, 1, 1, 32, {}, {}, {}, 5, 5},
    {"dropout", 1, 40, 70, 2, 2, 64, {}, {}, {}, 1 << 30, 1 << 30, 20000},
    {"everything dropped", 1, 20, 20, 1, 1, 32, {}, {}, {}, 1 << 30, 1 << 30, 65536},
    {"alibi", 2, 20, 50, 2, 1, 32, {}, {}, {}, 1 << 30, kCausal, 0, true},
    {"not aligned", 1, 20, 33, 2, 1, 32, {}, {}, {}, 1 << 30, 1 << 30, 0, false, 3},
    {"keys that do not count", 2, 17, 60, 2, 2, 32, {}, {}, {37, 0}, 1 << 30, kCausal},
    {"packed", 4, 90, 90, 2, 1, 32, {0, 17, 17, 82, 85}, {}, {}, 1 << 30, 1 << 30, 9000},
    {"packed, other keys", 3, 50, 90, 2, 1, 64, {0, 9, 40, 50}, {0, 60, 61, 88}, {}, 1 << 30, 0},
    {"packed, one long",
     9,
     330,
     330,
     1,
     1,
     32,
     {0, 1, 2, 3, 4, 5, 6, 7, 8, 325},
     {},
     {},
     1 << 30,
     0},
    {"more keys than are held", 1, 17, 300, 1, 1, 128, {}, {}, {}, 1 << 30, 1 << 30, 20000},
    {"sm_75", 1, 40, 70, 2, 1, 64, {}, {}, {}, 1 << 30, 0, 20000, true, 0, 75},
};

// Numbers of T as doubles, and as a kernel reads them.
template <class T>
struct Numbers16 {
  std::vector<T> stored;
  int64_t token, head;
  Numbers16(int64_t tokens, int64_t heads, int64_t dim, int gap, std::mt19937* random) {
    token = heads * dim + gap, head = dim;
    stored.resize(tokens * token);
    std::uniform_real_distribution<float> numbers(-1, 1);
    for (T& v : stored) v = from_float<T>(random ? numbers(*random) : NAN);
  }
  double at(int64_t t, int64_t h, int64_t d) const {
    return to_float(stored[t * token + h * head + d]);
  }
  template <class Void>
  AttentionRows<Void> rows(int64_t tokens) {  // of each sequence
    return {stored.data(), tokens * token, token, head};
  }
};

// The 16-bit number of a score, as bigfast/ops/dropout.py states it.
uint32_t number(uint64_t key, uint32_t plane, uint32_t row, uint32_t col) {
  uint32_t c[4] = {4 * (col / 32) + col / 2 % 4, row, plane, 0};
  uint32_t k[2] = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
  for (int round = 0; round < 7; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * c[0], b = uint64_t{0xCD9E8D57u} * c[2];
    const uint32_t next[4] = {
        static_cast<uint32_t>(b >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(b),
        static_cast<uint32_t>(a >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(a)};
    std::memcpy(c, next, sizeof(c));
    k[0] += 0x9E3779B9u, k[1] += 0xBB67AE85u;
  }
  const uint32_t n = 2 * (col / 8 % 4) + col % 2;
  return c[n / 2] >> 16 * (n % 2) & 0xFFFF;
}

template <class T>
class Test {
 public:
  explicit Test(const Case& c)
      : c_(c),
        random_(7),
        tokens_(c.ends.empty() ? c.batch * c.queries : c.queries),
        tokens_k_(c.ends.empty() ? c.batch * c.keys : c.keys),
        q_(tokens_, c.heads, c.dim, c.gap, &random_),
        k_(tokens_k_, c.kv_heads, c.dim, c.gap, &random_),
        v_(tokens_k_, c.kv_heads, c.dim, c.gap, &random_),
        grad_o_(tokens_, c.heads, c.dim, c.gap, &random_),
        o_(tokens_, c.heads, c.dim, 0, nullptr),
        dq_(tokens_, c.heads, c.dim, 0, nullptr),
        dk_(tokens_k_, c.kv_heads, c.dim, 0, nullptr),
        dv_(tokens_k_, c.kv_heads, c.dim, 0, nullptr),
        want_dk_(tokens_k_ * c.kv_heads * c.dim),
        want_dv_(want_dk_.size()),
        slopes_(c.heads * c.batch),
        lse_(tokens_ * c.heads, NAN) {
    for (float& slope : slopes_) slope = 0.01f * static_cast<float>(random_() % 100);
  }

  bool right() {
    AttentionForward a{};
    a.shape = shape();
    a.q = rows<const void>(q_, c_.queries), a.o = rows<void>(o_, c_.queries);
    a.k = rows<const void>(k_, c_.keys), a.v = rows<const void>(v_, c_.keys);
    a.lse = lse_.data();
    attention_fwd(a, nullptr);
    AttentionBackward g{};
    g.shape = a.shape, g.q = a.q, g.k = a.k, g.v = a.v, g.lse = a.lse;
    g.o = rows<const void>(o_, c_.queries), g.grad_o = rows<const void>(grad_o_, c_.queries);
    g.dq = rows<void>(dq_, c_.queries);
    g.dk = rows<void>(dk_, c_.keys), g.dv = rows<void>(dv_, c_.keys);
    attention_bwd(g, nullptr);

    std::vector<bool> written(tokens_);
    for (int b = 0; b < c_.batch; ++b) check_sequence(b, written);
    for (int64_t t = 0; t < tokens_; ++t)
      for (int64_t i = 0; !written[t] && i < c_.heads * c_.dim; ++i) {
        expect(0, o_.at(t, 0, i), 0, "o of nobody");
        expect(0, dq_.at(t, 0, i), 0, "dq of nobody");
      }
    for (size_t i = 0; i < want_dk_.size(); ++i) {
      expect_sum(want_dk_[i], to_float(dk_.stored[i]), "dk");
      expect_sum(want_dv_[i], to_float(dv_.stored[i]), "dv");
    }
    return right_;
  }

 private:
  template <class Void>
  AttentionRows<Void> rows(Numbers16<T>& x, int64_t tokens) {
    return x.template rows<Void>(c_.ends.empty() ? tokens : 0);
  }

  AttentionShape shape() {
    AttentionShape a{};
    a.batch = c_.batch, a.heads = c_.heads, a.kv_heads = c_.kv_heads, a.dim = c_.dim;
    a.queries = c_.queries, a.keys = c_.keys;
    a.cu_seqlens = c_.ends.empty() ? nullptr : c_.ends.data();
    a.cu_seqlens_k = c_.ends_k.empty() ? nullptr : c_.ends_k.data();
    a.seqused_k = c_.used.empty() ? nullptr : c_.used.data();
    a.left = c_.left, a.right = c_.right;
    a.alibi_slopes = c_.alibi ? slopes_.data() : nullptr;
    a.alibi_batch = c_.heads;
    a.scale = scale_;
    a.dtype = std::is_same_v<T, bf16> ? DType::bf16 : DType::f16;
    if (c_.threshold) {
      a.dropout.seed = &seed_;
      a.dropout.threshold = c_.threshold;
      a.dropout.scale = keep_scale();
    }
    return a;
  }
  float keep_scale() const {
    return c_.threshold == 65536 ? 0.0f : 65536.0f / static_cast<float>(65536 - c_.threshold);
  }

  void expect(double want, double got, double allowed, const char* what) {
    if (std::abs(want - got) <= allowed || want == got) return;
    if (right_) std::printf("%s: %s is %g, not %g +- %g\n", c_.name, what, got, want, allowed);
    right_ = false;
  }

  struct Sum {
    double value = 0, size = 0;
    void add(double term, double term_size) { value += term, size += term_size; }
    void add(double term) { add(term, std::abs(term)); }
  };
  void expect_sum(const Sum& want, double got, const char* what) {
    expect(want.value, got, 3 * kRounding * want.size + 1e-6, what);  // fp16: subnormal
  }

  void check_sequence(int b, std::vector<bool>& written) {
    const Ints& ends_k = c_.ends_k.empty() ? c_.ends : c_.ends_k;
    const bool packed = !c_.ends.empty();
    const int64_t q0 = packed ? c_.ends[b] : b * c_.queries;
    const int64_t k0 = packed ? ends_k[b] : b * c_.keys;
    const int64_t queries = packed ? c_.ends[b + 1] - q0 : c_.queries;
    int64_t keys = packed ? ends_k[b + 1] - k0 : c_.keys;
    if (!c_.used.empty()) keys = c_.used[b];
    for (int64_t h = 0; h < c_.heads; ++h)
      for (int64_t i = 0; i < queries; ++i) {
        written[q0 + i] = true;
        const int64_t h_k = h / (c_.heads / c_.kv_heads), own = i + keys - queries;
        Doubles p(keys, 0.0);
        double sum = 0;
        for (int64_t j = 0; j < keys; ++j) {
          if (j < own - c_.left || j > own + c_.right) continue;
          double s = 0;
          for (int64_t d = 0; d < c_.dim; ++d) s += q_.at(q0 + i, h, d) * k_.at(k0 + j, h_k, d);
          s *= scale_;
          if (c_.alibi) s -= slopes_[b * c_.heads + h] * std::abs(static_cast<double>(j - own));
          sum += p[j] = std::exp(s);
        }
        expect(std::log(sum), lse_[h * tokens_ + q0 + i], 1e-5, "lse");
        Doubles keep(keys, 1.0), dp(keys, 0.0), dp_size(keys, 0.0);
        double delta = 0, delta_size = 0;
        std::vector<Sum> o(c_.dim), dq(c_.dim);
        for (int64_t j = 0; j < keys; ++j) {
          if (p[j] == 0) continue;
          p[j] /= sum;
          if (c_.threshold) {
            const auto plane = static_cast<uint32_t>(b * c_.heads + h);
            const bool kept = number(seed_, plane, static_cast<uint32_t>(i),
                                     static_cast<uint32_t>(j)) >= uint32_t(c_.threshold);
            keep[j] = kept ? keep_scale() : 0;
          }
          for (int64_t d = 0; d < c_.dim; ++d) {
            const double v = v_.at(k0 + j, h_k, d), grad = grad_o_.at(q0 + i, h, d);
            o[d].add(p[j] * keep[j] * v);
            want_dv_[((k0 + j) * c_.kv_heads + h_k) * c_.dim + d].add(p[j] * keep[j] * grad);
            dp[j] += keep[j] * grad * v, dp_size[j] += std::abs(keep[j] * grad * v);
          }
          delta += p[j] * dp[j], delta_size += p[j] * dp_size[j];
        }
        for (int64_t j = 0; j < keys; ++j) {
          if (p[j] == 0) continue;
          const double ds = p[j] * (dp[j] - delta) * scale_;
          const double size = p[j] * (std::abs(dp[j]) + delta_size) * scale_;
          for (int64_t d = 0; d < c_.dim; ++d) {
            const double key = k_.at(k0 + j, h_k, d), query = q_.at(q0 + i, h, d);
            dq[d].add(ds * key, size * std::abs(key));
            want_dk_[((k0 + j) * c_.kv_heads + h_k) * c_.dim + d].add(ds * query,
                                                                      size * std::abs(query));
          }
        }
        for (int64_t d = 0; d < c_.dim; ++d) {
          expect_sum(o[d], o_.at(q0 + i, h, d), "o");
          expect_sum(dq[d], dq_.at(q0 + i, h, d), "dq");
        }
      }
  }

  static constexpr double kRounding = std::is_same_v<T, bf16> ? 1.0 / 256 : 1.0 / 2048;
  const Case& c_;
  std::mt19937 random_;
  int64_t tokens_, tokens_k_;
  Numbers16<T> q_, k_, v_, grad_o_, o_, dq_, dk_, dv_;
  std::vector<Sum> want_dk_, want_dv_;
  std::vector<float> slopes_, lse_;
  int64_t seed_ = 0x123456789ABCDEF;
  float scale_ = 0.3f;
  bool right_ = true;
};

}  // namespace
}  // namespace bigfast::cuda

// attention [PART OF A NAME]: those cases only.
int main(int count, char** words) {
  using namespace bigfast::cuda;
  bool right = true;
  for (const Case& c : kCases) {
    if (count > 1 && std::string(c.name).find(words[1]) == std::string::npos) continue;
    simt::machine().capability = c.capability;
    try {
      right = Test<f16>(c).right() && right;
      if (c.capability >= 80) right = Test<bf16>(c).right() && right;
    } catch (const std::runtime_error& error) {
      std::printf("%s: %s\n", c.name, error.what());
      right = false;
    }
  }
  if (right) std::puts("right");
  return !right;
}
