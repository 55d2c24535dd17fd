// csrc/cuda/adamw.cu and lamb.cu against plain steps of one element after the other, over lists of
// all types, on heap memory of just the right size.
#include "cuda/adamw.h"
#include "cuda/lamb.h"
#include "cuda/multi_tensor.h"

#include "native/truth.h"
#include "simt/stored.h"

namespace {

using bigfast::StepTensor;

constexpr double kBeta1 = 0.9, kBeta2 = 0.99, kEps = 1e-8, kDecay = 0.1, kRate = 1e-2, kScale = 0.5;
constexpr double kStep = 3;

template <class T>
void append(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

void same(const Floats& a, const Floats& b) {
  if (a != b) std::printf("FAIL a parameter is not its master\n"), ++failures;
}

// The formulas of adamw.cuh and lamb.cuh, over one tensor after the other.
template <class T>
struct Plain {
  std::vector<T> p, m, v;
  void add(const Floats& p0, const Floats& g0, const Floats& m0, const Floats& v0, bool lamb,
           bool has_p) {
    const T unbias1 = T(1 - std::pow(kBeta1, kStep)),
            root = T(std::sqrt(1 - std::pow(kBeta2, kStep)));
    std::vector<T> u;
    T p_squares = 0, u_squares = 0;
    for (size_t i = 0; i < p0.size(); ++i) {
      const T g = T(kScale) * T(g0[i]);
      m.push_back(T(m0[i]) + T(1 - kBeta1) * (g - T(m0[i])));
      v.push_back(T(kBeta2) * T(v0[i]) + T(1 - kBeta2) * g * g);
      const T towards = m.back() / unbias1 / (std::sqrt(v.back()) / root + T(kEps));
      u.push_back(towards + T(kDecay) * T(p0[i]));
      p_squares += T(p0[i]) * T(p0[i]);
      u_squares += u[i] * u[i];
    }
    const T ratio = lamb ? std::sqrt(p_squares) / std::sqrt(u_squares) : T(1);
    for (size_t i = 0; has_p && i < p0.size(); ++i) p.push_back(p0[i] - T(kRate) * ratio * u[i]);
  }
};

// Numbers that begin at a multiple of 16 bytes, or, moved, one number behind it.
class Memory {
 public:
  Memory(Floats& v, DType dtype, bool moved) : begin_(moved ? (dtype == DType::f32 ? 4 : 2) : 0) {
    const auto bytes = stored(v, dtype);
    bytes_ = std::vector<char>(begin_ + bytes.size());
    std::copy(bytes.begin(), bytes.end(), bytes_.begin() + begin_);
  }
  float* at() { return reinterpret_cast<float*>(bytes_.data() + begin_); }
  Floats floats() { return Floats(at(), at() + (bytes_.size() - begin_) / 4); }

 private:
  size_t begin_;
  std::vector<char> bytes_;
};

constexpr int kAll = 31;
struct Kind {
  DType param, grad;
  bool master;
  int moved;  // a bit for each of param, grad, exp_avg, exp_avg_sq, master
  bool moves(int which) const { return moved >> which & 1; }
};

// One tensor of a list: what it was before the step, and its memory.
struct Tensor {
  Kind kind;
  Floats p, g, m, v;
  Memory param, grad, exp_avg, exp_avg_sq, master;
  Tensor(const Kind& of, size_t n)
      : kind(of),
        p(randn(n)),
        g(randn(n)),
        m(randn(n)),
        v(squares(n)),
        param(p, of.param, of.moves(0)),
        grad(g, of.grad, of.moves(1)),
        exp_avg(m, DType::f32, of.moves(2)),
        exp_avg_sq(v, DType::f32, of.moves(3)),
        master(p, DType::f32, of.moves(4)) {}

  static Floats squares(size_t n) {
    Floats v = randn(n);
    for (float& x : v) x *= x;
    return v;
  }
  StepTensor row(int64_t first_task, uint32_t plane) {
    return {param.at(),
            grad.at(),
            exp_avg.at(),
            exp_avg_sq.at(),
            kind.master ? master.at() : nullptr,
            static_cast<int64_t>(p.size()),
            first_task,
            plane,
            kind.param,
            kind.grad};
  }
};

// One step over all tensors, which stand in order of their types.
void test_step(bool lamb, std::vector<Tensor> tensors) {
  const std::vector<int64_t> seed{42};
  std::vector<StepTensor> rows;
  int64_t blocks = 0;
  for (Tensor& t : tensors) {
    rows.push_back(t.row(blocks, static_cast<uint32_t>(rows.size())));
    blocks += (rows.back().size + cuda::kChunk - 1) / cuda::kChunk;
  }
  const auto count = static_cast<int64_t>(rows.size());
  std::vector<char> memory(cuda::table_bytes(count, blocks));
  const float scale = kScale;
  const int64_t step = kStep;
  const double rate = kRate;
  cuda::StepList list{};
  list.table = cuda::table_in(memory.data(), count, blocks), list.seed = seed.data();
  list.grad_scale = {&scale, cuda::NumberType::f32, 0}, list.sign = 1.0f;
  list.found_inf = {nullptr, cuda::NumberType::f64, 0};
  cuda::write_table(rows, list.table, nullptr);
  const cuda::Moments moments{std::log(kBeta1), std::log(kBeta2), 1 - kBeta1,
                              kBeta2,           1 - kBeta2,       kEps};
  const cuda::Number t{&step, cuda::NumberType::i64, 0}, lr{&rate, cuda::NumberType::f64, 0};
  if (lamb) {
    Floats sums(2 * blocks), rates(count);
    cuda::lamb({list, moments, t, lr, kDecay, sums.data(), rates.data()}, cuda::groups_of(rows),
               nullptr);
  } else {
    cuda::adamw({list, moments, t, lr, kDecay}, cuda::groups_of(rows), nullptr);
  }
  // All tensors together: of a few numbers, plain's may all be exact by luck.
  Floats p, m, v;
  Plain<float> plain;
  Plain<double> truth;
  for (Tensor& x : tensors) {
    append(m, x.exp_avg.floats()), append(v, x.exp_avg_sq.floats());
    const bool has_p = x.kind.master || x.kind.param == DType::f32;
    if (has_p) append(p, (x.kind.master ? x.master : x.param).floats());
    if (x.kind.master && x.kind.param == DType::f32) same(x.param.floats(), x.master.floats());
    plain.add(x.p, x.g, x.m, x.v, lamb, has_p);
    truth.add(x.p, x.g, x.m, x.v, lamb, has_p);
  }
  check("exp_avg", m, plain.m, truth.m);
  check("exp_avg_sq", v, plain.v, truth.v);
  check("p", p, plain.p, truth.p);
}

}  // namespace

int main() {
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  for (bool lamb : {false, true}) {
    for (int moved : {0, kAll}) {
      std::vector<Tensor> mixed;  // without masters; then with one each
      for (const auto& [param, grad] : {std::pair{f32, f32}, {bf16, f32}, {bf16, bf16}, {f16, f16}})
        for (size_t n : {3, 7, 1030}) mixed.emplace_back(Kind{param, grad, false, moved}, n);
      test_step(lamb, mixed);
      test_step(lamb, {{{f32, f32, true, moved}, 9}, {{bf16, bf16, true, moved}, 35}});
      const Kind plain{f32, f32, false, moved};
      test_step(lamb, {{plain, 5}, {plain, 16389}, {plain, 7}});
    }
    for (int moved = 1; moved < kAll; moved *= 2)
      test_step(lamb, {{{f32, f32, true, moved}, 35}, {{f32, bf16, true, moved}, 35}});
    std::vector<Tensor> many;  // more than a launch takes rows of
    for (size_t n = 3; n <= 62; ++n)
      many.emplace_back(Kind{f32, f32, false, n % 3 == 0 ? kAll : 0}, n);
    test_step(lamb, many);
  }
  return failures != 0;
}
