// Indices of either width that choose rows of a table.
#pragma once

#include <cstdint>

namespace bigfast::cpu {

struct Index {
  const void* ids;  // (tokens), int64 where wide, else int32; null: token % period
  bool wide;
  int64_t period;

  int64_t operator[](int64_t token) const {
    if (!ids) return token % period;
    return wide ? static_cast<const int64_t*>(ids)[token] : static_cast<const int32_t*>(ids)[token];
  }
};

}  // namespace bigfast::cpu
