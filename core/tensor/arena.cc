#include "core/tensor/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

#include "core/base/check.h"

namespace moebius {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr int64_t kMapping = int64_t{32} << 20;

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

using Ranges = std::vector<std::pair<char*, int64_t>>;  // address, bytes

// What is in one of `ranges` and in none of `but`, joined.
Ranges Without(const Ranges& ranges, const Ranges& but) {
  struct Change {
    int ranges = 0, but = 0;  // that begin at an address, less those that end there
  };
  std::map<char*, Change> changes;
  const auto add = [&](const Ranges& all, int Change::*count) {
    for (const auto& [address, bytes] : all) {
      ++(changes[address].*count);
      --(changes[address + bytes].*count);
    }
  };
  add(ranges, &Change::ranges);
  add(but, &Change::but);
  Ranges rest;
  Change open;
  for (const auto& [address, change] : changes) {
    const bool was_in = open.ranges > 0 && open.but == 0;
    open.ranges += change.ranges;
    open.but += change.but;
    const bool is_in = open.ranges > 0 && open.but == 0;
    if (is_in && !was_in) rest.emplace_back(address, 0);
    if (was_in && !is_in) rest.back().second = address - rest.back().first;
  }
  return rest;
}

}  // namespace

class Arena::Impl : public std::enable_shared_from_this<Arena::Impl> {
 public:
  Impl(std::string name, Device device, int64_t budget, std::shared_ptr<Accelerator> accelerator)
      : name_(std::move(name)),
        device_(device),
        budget_(budget),
        accelerator_(std::move(accelerator)) {}
  ~Impl() {
    for (const auto& [address, bytes] : mappings_) UnmapPages(address, bytes);
  }

  std::shared_ptr<Storage> Allocate(int64_t bytes, const char* name);
  // Whose memory it is.
  Accelerator* owner() const { return device_.is_cuda() ? accelerator_.get() : nullptr; }
  void Free(char* address, int64_t bytes, const std::string& name);

  Use total() const {
    const std::lock_guard lock(mutex_);
    return total_;
  }
  std::map<std::string, Use> by_name() const {
    const std::lock_guard lock(mutex_);
    return by_name_;
  }
  int64_t mapped_bytes() const {
    const std::lock_guard lock(mutex_);
    int64_t sum = 0;
    for (const auto& mapping : mappings_) sum += mapping.second;
    return sum;
  }

  void BeginTrace();
  Trace EndTrace();
  bool IsFree(const Trace& trace) const;

 private:
  char* Take(int64_t bytes);  // best fit
  void AddFree(char* address, int64_t bytes);
  void RemoveFree(std::map<char*, int64_t>::iterator hole);
  void Map(int64_t bytes);
  void* MapPages(int64_t bytes);  // null: refused
  void UnmapPages(void* address, int64_t bytes);
  [[noreturn]] void FailOverBudget(int64_t bytes, const char* name) const;

  const std::string name_;
  const Device device_;
  const int64_t budget_;
  const std::shared_ptr<Accelerator> accelerator_;
  mutable std::mutex mutex_;
  std::map<char*, int64_t> free_by_address_;
  std::set<std::pair<int64_t, char*>> free_by_size_;
  std::vector<std::pair<char*, int64_t>> mappings_;
  Use total_;
  std::map<std::string, Use> by_name_;
  struct Handed {
    std::pair<char*, int64_t> range;
    std::weak_ptr<Storage> storage;
  };
  std::optional<std::vector<Handed>> traced_;
};

namespace {

class ArenaStorage final : public Storage {
 public:
  ArenaStorage(void* data, int64_t bytes, Device device, int64_t taken, std::string name,
               std::shared_ptr<Arena::Impl> arena)
      : Storage(data, bytes, device, arena->owner()),
        taken_(taken),
        name_(std::move(name)),
        arena_(std::move(arena)) {}
  ~ArenaStorage() override { arena_->Free(static_cast<char*>(data()), taken_, name_); }

 private:
  const int64_t taken_;
  const std::string name_;
  const std::shared_ptr<Arena::Impl> arena_;
};

void Raise(Arena::Use* use, int64_t bytes) {
  use->bytes += bytes;
  use->peak_bytes = std::max(use->peak_bytes, use->bytes);
}

}  // namespace

std::shared_ptr<Storage> Arena::Impl::Allocate(int64_t bytes, const char* name) {
  CHECK_GE(bytes, 0) << name;
  const int64_t taken = RoundUp(bytes, kAlignment);
  const std::lock_guard lock(mutex_);
  if (budget_ > 0 && total_.bytes + taken > budget_) FailOverBudget(taken, name);
  char* address = device_.is_meta() || taken == 0 ? nullptr : Take(taken);
  Raise(&total_, taken);
  Raise(&by_name_[name], taken);
  auto storage =
      std::make_shared<ArenaStorage>(address, bytes, device_, taken, name, shared_from_this());
  if (traced_ && address != nullptr) traced_->push_back({{address, taken}, storage});
  return storage;
}

void Arena::Impl::Free(char* address, int64_t bytes, const std::string& name) {
  const std::lock_guard lock(mutex_);
  total_.bytes -= bytes;
  by_name_[name].bytes -= bytes;
  if (address != nullptr) AddFree(address, bytes);
}

void Arena::Impl::BeginTrace() {
  const std::lock_guard lock(mutex_);
  CHECK(!traced_) << name_ << " memory is traced already";
  traced_.emplace();
}

Arena::Trace Arena::Impl::EndTrace() {
  const std::lock_guard lock(mutex_);
  CHECK(traced_) << name_ << " memory is not traced";
  const std::vector<Handed> all = *std::exchange(traced_, std::nullopt);
  Trace trace;
  Ranges handed, kept;
  for (const auto& [range, storage] : all) {
    handed.push_back(range);
    std::shared_ptr<Storage> owned = storage.lock();
    if (owned == nullptr) continue;
    trace.kept.push_back(std::move(owned));
    kept.push_back(range);
  }
  trace.given_back = Without(handed, kept);
  return trace;
}

bool Arena::Impl::IsFree(const Trace& trace) const {
  const std::lock_guard lock(mutex_);
  return std::ranges::all_of(trace.given_back, [&](const auto& range) {
    const auto behind = free_by_address_.upper_bound(range.first);
    if (behind == free_by_address_.begin()) return false;
    const auto& [address, bytes] = *std::prev(behind);
    return range.first + range.second <= address + bytes;
  });
}

char* Arena::Impl::Take(int64_t bytes) {
  auto best = free_by_size_.lower_bound({bytes, nullptr});
  if (best == free_by_size_.end()) {
    Map(bytes);
    best = free_by_size_.lower_bound({bytes, nullptr});
  }
  const auto [size, address] = *best;
  RemoveFree(free_by_address_.find(address));
  if (size > bytes) AddFree(address + bytes, size - bytes);
  return address;
}

void Arena::Impl::AddFree(char* address, int64_t bytes) {
  auto next = free_by_address_.lower_bound(address);
  if (next != free_by_address_.end() && address + bytes == next->first) {
    bytes += next->second;
    RemoveFree(next++);
  }
  if (next != free_by_address_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == address) {
      address = previous->first;
      bytes += previous->second;
      RemoveFree(previous);
    }
  }
  free_by_address_[address] = bytes;
  free_by_size_.insert({bytes, address});
}

void Arena::Impl::RemoveFree(std::map<char*, int64_t>::iterator hole) {
  free_by_size_.erase({hole->second, hole->first});
  free_by_address_.erase(hole);
}

void Arena::Impl::Map(int64_t bytes) {
  // One huge page more than needed, so that the usable part starts on a huge page.
  const int64_t usable = std::max(kMapping, RoundUp(bytes, kHugePage));
  void* address = MapPages(usable + kHugePage);
  if (address == nullptr) {
    EndProcess(name_ + " memory: the system refuses " + std::to_string(usable) + " bytes", 1);
  }
  mappings_.emplace_back(static_cast<char*>(address), usable + kHugePage);
  const auto start = reinterpret_cast<uintptr_t>(address);
  char* aligned = reinterpret_cast<char*>(RoundUp(static_cast<int64_t>(start), kHugePage));
  if (accelerator_ == nullptr) ::madvise(aligned, static_cast<size_t>(usable), MADV_HUGEPAGE);
  AddFree(aligned, usable);
}

void* Arena::Impl::MapPages(int64_t bytes) {
  if (device_.is_cuda()) return accelerator_->Map(bytes);
  if (accelerator_ != nullptr) return accelerator_->MapHost(bytes);
  void* address = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return address == MAP_FAILED ? nullptr : address;
}

void Arena::Impl::UnmapPages(void* address, int64_t bytes) {
  if (device_.is_cuda()) return accelerator_->Unmap(address, bytes);
  if (accelerator_ != nullptr) return accelerator_->UnmapHost(address, bytes);
  ::munmap(address, static_cast<size_t>(bytes));
}

void Arena::Impl::FailOverBudget(int64_t bytes, const char* name) const {
  for (const auto& [used_by, use] : by_name_) {
    if (use.bytes > 0) {
      std::fprintf(stderr, "  %-32s %14lld\n", used_by.c_str(), static_cast<long long>(use.bytes));
    }
  }
  std::ostringstream sentence;
  sentence << name_ << " memory: " << name << " needs " << bytes << " bytes, but " << total_.bytes
           << " of the budget of " << budget_ << " are in use";
  EndProcess(sentence.str(), 1);
}

Arena::Arena(std::string name, Device device, int64_t budget_bytes,
             std::shared_ptr<Accelerator> accelerator) {
  CHECK(!device.is_cuda() || accelerator != nullptr) << "a device without its accelerator";
  impl_ = std::make_shared<Impl>(std::move(name), device, budget_bytes, std::move(accelerator));
}

Arena::~Arena() = default;

std::shared_ptr<Storage> Arena::Allocate(int64_t bytes, const char* name) {
  return impl_->Allocate(bytes, name);
}

Arena::Use Arena::total() const { return impl_->total(); }
std::map<std::string, Arena::Use> Arena::by_name() const { return impl_->by_name(); }
int64_t Arena::mapped_bytes() const { return impl_->mapped_bytes(); }
void Arena::BeginTrace() { impl_->BeginTrace(); }
Arena::Trace Arena::EndTrace() { return impl_->EndTrace(); }
bool Arena::IsFree(const Trace& trace) const { return impl_->IsFree(trace); }

}  // namespace moebius
