// Where a tensor's bytes are. `kMeta` has none: ops run their shapes, saves, leases and
// allocations, so that memory is planned by the code that uses it.
#pragma once

namespace moebius {

enum class DeviceKind { kCpu, kCuda, kMeta };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int ordinal = 0;

  bool is_cpu() const { return kind == DeviceKind::kCpu; }
  bool is_cuda() const { return kind == DeviceKind::kCuda; }
  bool is_meta() const { return kind == DeviceKind::kMeta; }
  bool operator==(const Device&) const = default;
};

inline constexpr Device kCpu{DeviceKind::kCpu, 0};
inline constexpr Device kMeta{DeviceKind::kMeta, 0};

}  // namespace moebius
