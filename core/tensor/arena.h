// Memory of one tier (device, host) of one rank: large mappings with huge pages, cut up best-fit
// and joined again when freed. The same sequence of requests gets the same addresses, so a steady
// step maps nothing new. Bytes are accounted by name. Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor/accelerator.h"
#include "core/tensor/device.h"

namespace moebius {

// A piece of an arena, given back when the last owner lets go. `data` is null on kMeta and for zero
// bytes. Aligned to 64 bytes; not zeroed.
class Storage {
 public:
  // `accelerator`: whose memory it is; null: the host's, or none.
  Storage(void* data, int64_t bytes, Device device, Accelerator* accelerator = nullptr)
      : data_(data), bytes_(bytes), device_(device), accelerator_(accelerator) {}
  virtual ~Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  Accelerator* accelerator() const { return accelerator_; }

 private:
  void* const data_;
  const int64_t bytes_;
  const Device device_;
  Accelerator* const accelerator_;
};

class Arena {
 public:
  struct Use {
    int64_t bytes = 0;       // now
    int64_t peak_bytes = 0;  // the most at any moment
  };

  // `name` for messages ("device", "host"). budget_bytes 0: no limit. A request beyond the budget
  // ends the run with the arena's table of names (exit code 1). `accelerator`: whose memory it is
  // on kCuda; on kCpu, for whose copies it is pinned.
  Arena(std::string name, Device device, int64_t budget_bytes = 0,
        std::shared_ptr<Accelerator> accelerator = nullptr);
  ~Arena();  // storages may outlive the arena

  std::shared_ptr<Storage> Allocate(int64_t bytes, const char* name);

  Use total() const;
  std::map<std::string, Use> by_name() const;
  int64_t mapped_bytes() const;  // asked from the system so far

  // All memory that was handed out between BeginTrace and EndTrace: what recorded work goes on to
  // use (Accelerator::BeginRecording), whoever has it by then.
  struct Trace {
    std::vector<std::shared_ptr<Storage>> kept;         // what had an owner at the end
    std::vector<std::pair<char*, int64_t>> given_back;  // the rest: address, bytes
  };
  void BeginTrace();  // REQUIRES: none has begun
  Trace EndTrace();
  bool IsFree(const Trace& trace) const;  // nobody has any of what was given back

  class Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace moebius
