#include "tests/testing/tiny_dataset.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "configs/load.h"
#include "core/base/check.h"
#include "data/prepare.h"
#include "data/spec_from_proto.h"

namespace moebius {
namespace {

Dataset PrepareTinyDataset() {
  const auto config = LoadRunConfig("configs/recipes/tiny.textproto");
  CHECK(config.ok()) << config.status();
  // The ranks of an MPI test share the temporary folder.
  const std::string folder = testing::TempDir() + "/tiny_dataset_" + std::to_string(getpid());
  const auto outcome = Prepare(DataSpecFromProto(config->data(), folder),
                               [](const std::string&, int64_t, int64_t) {});
  CHECK(outcome.ok()) << outcome.status();
  auto dataset = Dataset::Open(folder);
  CHECK(dataset.ok()) << dataset.status();
  return *std::move(dataset);
}

}  // namespace

const Dataset& TinyDataset() {
  static const Dataset& dataset = *new Dataset(PrepareTinyDataset());
  return dataset;
}

}  // namespace moebius
