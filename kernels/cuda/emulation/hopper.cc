#include "kernels/cuda/emulation/hopper.h"

#include <array>
#include <atomic>
#include <deque>
#include <limits>
#include <memory>
#include <vector>

#include "core/base/check.h"

namespace moebius::cuda_emulation {
namespace {

constexpr int64_t kSharedBytes = 227 << 10, kCell = 16;
constexpr uint32_t kFirstAddress = 1072;  // of dynamic shared memory: 16-byte aligned, no more
constexpr int kWarpgroup = 128, kRows = 64, kDepth = 16;

enum class State : uint8_t { kUnknown, kInFlight, kLanded, kVisible };

// 16 bytes of dynamic shared memory.
struct Cell {
  State state = State::kUnknown;
  int readers = 0;  // products that are not done
};

struct Copy {
  int64_t cell;
  std::array<std::byte, kCell> bytes;
};

// What 128 threads have begun together. Values as the descriptors say when the first of them came,
// and as registers say when their thread came.
struct Product {
  WgmmaProduct what;
  std::vector<float> a_values = {}, b_values = {};  // [kRows, kDepth], [columns, kDepth]
  std::vector<int64_t> cells = {};                  // of which it reads
  int threads_left = kWarpgroup;
};

struct Warpgroup {
  std::deque<Product> products;
  int64_t first = 0;  // products.front() is its product number `first`
};

// A thread's part of a product.
struct Part {
  float* d;
  const uint32_t* a;  // registers; or null
  std::array<uint32_t, 4> a_values;
};

// Registers of a thread that products write.
struct Accumulator {
  float* registers;
  std::vector<float> values;
  int pending;
};

struct Thread {
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
  std::vector<int64_t> landed;  // cells that no fence has shown yet

  int64_t begun = 0, done = 0;     // products
  std::deque<int64_t> group_ends;  // of products
  std::deque<Part> parts;          // of products done, done + 1, ...
  std::vector<Accumulator> accumulators;
  bool fenced = false;
};

struct Block {
  std::unique_ptr<std::byte[]> shared{new std::byte[kSharedBytes]};
  std::vector<Cell> cells;
  std::vector<Thread> threads;
  std::vector<Warpgroup> warpgroups;
};

Block& ThisBlock() {
  static thread_local Block block;
  return block;
}
int ThreadIndex() { return static_cast<int>(CurrentPlace().thread.x); }
Thread& ThisThread() { return ThisBlock().threads[ThreadIndex()]; }

std::atomic<int64_t> num_products{0};

int64_t CellAt(int64_t offset) {
  CHECK(0 <= offset && offset / kCell < std::ssize(ThisBlock().cells))
      << "byte " << offset << " of dynamic shared memory";
  return offset / kCell;
}

// The matrix that a descriptor says.
struct Matrix {
  explicit Matrix(const WgmmaOperand& operand)
      : start(Bits(operand, 0, 14) << 4),
        leading(Bits(operand, 16, 14) << 4),
        stride(Bits(operand, 32, 14) << 4),
        transposed(operand.transposed) {
    constexpr uint64_t kUnused = 0x3FF1C000C000C000u;
    CHECK_EQ(operand.descriptor & kUnused, uint64_t{0}) << "unused bits of a matrix descriptor";
    CHECK_EQ(Bits(operand, 62, 2), 1) << "only the 128-byte swizzle is played";
    CHECK_EQ(Bits(operand, 49, 3), 0) << "base offset of a matrix descriptor";
    CHECK_EQ(start >> 7 & 7, 0) << "an operand begins in the middle of its atom";
    CHECK(stride % 1024 == 0 && (!transposed || leading % 1024 == 0)) << "atoms are not aligned";
  }
  static int64_t Bits(const WgmmaOperand& operand, int first, int count) {
    return static_cast<int64_t>(operand.descriptor >> first & ((uint64_t{1} << count) - 1));
  }

  // Of the number of row or column `mn` and depth `k`: the canonical layouts of swizzled operands.
  int64_t Address(int mn, int k) const {
    const int64_t plain =
        transposed ? start + mn % 64 * 2 + mn / 64 * leading + k % 8 * 128 + k / 8 * stride
                   : start + mn % 8 * 128 + mn / 8 * stride + k * 2;
    return plain ^ (plain >> 7 & 7) << 4;
  }

  int64_t start, leading, stride;
  bool transposed;
};

void Decode(const WgmmaOperand& operand, int rows, std::vector<float>& values, Product& product) {
  Block& block = ThisBlock();
  const Matrix matrix(operand);
  values.resize(rows * kDepth);
  int64_t last = -1;
  for (int mn = 0; mn < rows; ++mn) {
    for (int k = 0; k < kDepth; ++k) {
      const int64_t offset = matrix.Address(mn, k) - kFirstAddress, cell = CellAt(offset);
      BF16 value;
      std::memcpy(&value, &block.shared[offset], sizeof value);
      values[mn * kDepth + k] = static_cast<float>(value);
      if (cell == last) continue;
      last = cell;
      CHECK(block.cells[cell].state != State::kUnknown) << "a product reads what nobody wrote";
      CHECK(block.cells[cell].state != State::kInFlight)
          << "a product reads what a copy has not brought yet";
      CHECK(block.cells[cell].state == State::kVisible)
          << "a product reads what no fence has shown to the tensor cores";
      ++block.cells[cell].readers;
      product.cells.push_back(cell);
    }
  }
}

Accumulator& AccumulatorAt(float* d, int count, Thread& thread) {
  for (Accumulator& accumulator : thread.accumulators) {
    if (accumulator.registers == d) return accumulator;
  }
  CHECK(thread.fenced) << "registers go into a product without wgmma.fence";
  thread.accumulators.push_back({d, std::vector<float>(d, d + count), 0});
  std::fill_n(d, count, std::numeric_limits<float>::quiet_NaN());
  return thread.accumulators.back();
}

float Dot(const float* a, const float* b) {
  float sums[kDepth];
  for (int k = 0; k < kDepth; ++k) sums[k] = a[k] * b[k];
  for (int half = kDepth / 2; half > 0; half /= 2) {
    for (int k = 0; k < half; ++k) sums[k] += sums[k + half];
  }
  return sums[0];
}

// Of the thread's part of d, and of a.
int FirstRow() { return ThreadIndex() % kWarpgroup / 32 * 16 + Lane() / 4; }
int FirstColumn() { return Lane() % 4 * 2; }

// The fragment of 64 x 16 numbers: registers hold pairs of a row, then of the row 8 below, and both
// again 8 columns further.
Part PartOf(float* d, const uint32_t* a, Product& product) {
  if (a == nullptr) return {d, nullptr, {}};
  Part part = {d, a, {a[0], a[1], a[2], a[3]}};
  product.a_values.resize(kRows * kDepth);
  for (int i = 0; i < 8; ++i) {
    const int row = FirstRow() + i / 2 % 2 * 8, k = FirstColumn() + i / 4 * 8 + i % 2;
    BF16 value;
    value.bits = static_cast<uint16_t>(part.a_values[i / 2] >> i % 2 * 16);
    product.a_values[row * kDepth + k] = static_cast<float>(value);
  }
  return part;
}

// The thread's part of its oldest product.
void Complete(Thread& thread) {
  Block& block = ThisBlock();
  Warpgroup& warpgroup = block.warpgroups[ThreadIndex() / kWarpgroup];
  Product& product = warpgroup.products[thread.done - warpgroup.first];
  const Part& part = thread.parts.front();
  CHECK(part.a == nullptr || std::equal(part.a, part.a + 4, part.a_values.begin()))
      << "registers of an operand changed before the product was done";
  Accumulator& d = AccumulatorAt(part.d, 0, thread);
  for (int i = 0; i < std::ssize(d.values); ++i) {
    const int row = FirstRow() + i / 2 % 2 * 8, column = FirstColumn() + i / 4 * 8 + i % 2;
    if (!product.what.add) d.values[i] = 0;
    d.values[i] += Dot(&product.a_values[row * kDepth], &product.b_values[column * kDepth]);
  }
  if (--d.pending == 0) {
    std::copy(d.values.begin(), d.values.end(), d.registers);
    thread.accumulators.erase(thread.accumulators.begin() + (&d - thread.accumulators.data()));
  }
  thread.parts.pop_front();
  ++thread.done;
  if (--product.threads_left > 0) return;
  for (const int64_t cell : product.cells) --block.cells[cell].readers;
  warpgroup.products.pop_front();
  ++warpgroup.first;
}

// An mbarrier, as it lies in its 8 bytes.
struct Barrier {
  int16_t expected, pending;
  uint32_t phase;  // that is not complete
};
static_assert(sizeof(Barrier) == sizeof(uint64_t));

}  // namespace

void BeginAsync(int threads, int64_t shared_bytes) {
  CHECK_LE(shared_bytes, kSharedBytes) << "dynamic shared memory";
  Block& block = ThisBlock();
  std::memset(block.shared.get(), 0xFF, shared_bytes);
  block.cells.assign((shared_bytes + kCell - 1) / kCell, {});
  block.threads.assign(threads, {});
  block.warpgroups.assign((threads + kWarpgroup - 1) / kWarpgroup, {});
}

void EndAsync() {
  for (const Thread& thread : ThisBlock().threads) {
    CHECK(thread.open.empty() && thread.groups.empty()) << "a thread left copies in flight";
    CHECK(thread.parts.empty()) << "a thread left products in flight";
  }
}

void* DynamicShared() { return ThisBlock().shared.get(); }

uint32_t SharedAddress(const void* p) {
  const int64_t offset = static_cast<const std::byte*>(p) - ThisBlock().shared.get();
  CHECK(0 <= offset && offset < kSharedBytes) << "not dynamic shared memory";
  return kFirstAddress + static_cast<uint32_t>(offset);
}

void InitBarrier(uint64_t* barrier, int count) {
  const auto expected = static_cast<int16_t>(count);
  const Barrier fresh = {expected, expected, 0};
  std::memcpy(barrier, &fresh, sizeof fresh);
}

void Arrive(uint64_t* barrier) {
  Barrier b;
  std::memcpy(&b, barrier, sizeof b);
  if (--b.pending == 0) b = {b.expected, b.expected, b.phase + 1};
  std::memcpy(barrier, &b, sizeof b);
}

void WaitForBarrier(uint64_t* barrier, uint32_t parity) {
  Poll([=] {
    Barrier b;
    std::memcpy(&b, barrier, sizeof b);
    return b.phase % 2 != parity;
  });
}

void CopyAsync(void* to, const void* from, bool inside) {
  CHECK_EQ(SharedAddress(to) % kCell, 0u) << "a copy of 16 bytes to elsewhere";
  CHECK(!inside || reinterpret_cast<uintptr_t>(from) % kCell == 0)
      << "a copy of 16 bytes from elsewhere";
  const int64_t cell = CellAt(SharedAddress(to) - kFirstAddress);
  Cell& target = ThisBlock().cells[cell];
  CHECK_EQ(target.readers, 0) << "a copy overwrites what a product may still read";
  target.state = State::kInFlight;
  std::memset(to, 0xFF, kCell);
  Copy copy = {cell, {}};
  if (inside) std::memcpy(copy.bytes.data(), from, kCell);
  ThisThread().open.push_back(copy);
}

void CommitCopies() {
  Thread& thread = ThisThread();
  thread.groups.push_back(std::move(thread.open));
  thread.open.clear();
}

void WaitCopies(int left) {
  Block& block = ThisBlock();
  Thread& thread = ThisThread();
  for (; std::ssize(thread.groups) > left; thread.groups.pop_front()) {
    for (const Copy& copy : thread.groups.front()) {
      std::memcpy(&block.shared[copy.cell * kCell], copy.bytes.data(), kCell);
      block.cells[copy.cell].state = State::kLanded;
      thread.landed.push_back(copy.cell);
    }
  }
}

void FenceAsyncProxy() {
  for (const int64_t cell : ThisThread().landed) {
    State& state = ThisBlock().cells[cell].state;
    if (state == State::kLanded) state = State::kVisible;
  }
  ThisThread().landed.clear();
}

void WgmmaFence() { ThisThread().fenced = true; }

void Wgmma(const WgmmaProduct& what, float* d, const uint32_t* a_registers) {
  Thread& thread = ThisThread();
  Warpgroup& warpgroup = ThisBlock().warpgroups[ThreadIndex() / kWarpgroup];
  const int64_t index = thread.begun++ - warpgroup.first;
  if (index == std::ssize(warpgroup.products)) {
    Product product = {.what = what};
    if (what.a) Decode(*what.a, kRows, product.a_values, product);
    Decode(what.b, what.columns, product.b_values, product);
    warpgroup.products.push_back(std::move(product));
    ++num_products;
  }
  Product& product = warpgroup.products[index];
  CHECK(product.what == what) << "threads of a warpgroup differ in a product";
  CHECK(what.a || thread.fenced) << "registers go into a product without wgmma.fence";
  ++AccumulatorAt(d, what.columns / 2, thread).pending;
  thread.parts.push_back(PartOf(d, a_registers, product));
}

void WgmmaCommit() {
  Thread& thread = ThisThread();
  thread.group_ends.push_back(thread.begun);
}

// Between two barriers: each lane has begun what is computed, and has computed its part.
void WgmmaWait(int left) {
  Thread& thread = ThisThread();
  WarpBarrier();
  for (; std::ssize(thread.group_ends) > left; thread.group_ends.pop_front()) {
    while (thread.done < thread.group_ends.front()) Complete(thread);
  }
  thread.fenced = false;
  WarpBarrier();
}

int64_t NumProducts() { return num_products; }

}  // namespace moebius::cuda_emulation
