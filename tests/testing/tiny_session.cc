#include "tests/testing/tiny_session.h"

#include <chrono>

#include "configs/load.h"
#include "core/base/check.h"
#include "parallel/thread_communicator.h"
#include "tests/testing/device_context.h"
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

}  // namespace moebius
