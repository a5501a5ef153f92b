#include "tests/testing/tiny_session.h"

#include <chrono>

#include "configs/load.h"
#include "core/base/check.h"
#include "parallel/thread_communicator.h"
#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tiny_dataset.h"

namespace moebius {

RunConfig TinyConfig(const std::vector<std::string>& overrides) {
  std::vector<std::string> all = {"precision.compute=FP64", "train.sequence_length=8",
                                  "train.global_batch_size=4", "train.micro_batch_size=1"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  auto config = LoadRunConfig("configs/recipes/tiny.textproto", all);
  CHECK(config.ok()) << config.status();
  return *std::move(config);
}

void OnTinySessions(int ranks, const RunConfig& config,
                    const std::function<void(Session& session)>& body,
                    const Context::Options& options) {
  RunOnThreads(ranks, {.deadline = std::chrono::minutes(1)}, [&](Communicator& world) {
    const auto session = Session::Create(config, world, TinyDataset(), test::OnTestDevice(options));
    CHECK(session.ok()) << session.status();
    body(**session);
  });
}

std::vector<std::vector<std::byte>> StateOf(Transformer& model, AdamW& optimizer) {
  std::vector<std::vector<std::byte>> state;
  const auto add = [&](const Tensor& x) { state.push_back(test::ToBytes(x)); };
  for (const Parameter* parameter : model.store().parameters()) add(parameter->value);
  for (const Buffer* buffer : model.store().buffers()) add(buffer->value);
  for (const AdamW::State& moments : optimizer.states()) {
    add(moments.m);
    add(moments.v);
  }
  return state;
}

}  // namespace moebius
