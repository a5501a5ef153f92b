// Layouts whose ranks share a device, beside one rank on it: every axis, and the ways of exchange.
#include <gtest/gtest.h>

#include "tests/parity/cell_checks.h"

namespace moebius {
namespace {

// Small and short: a device that the CPU plays is slow.
const Overrides kTrained = {
    "run.device=CUDA",
    "train.num_steps=2",
    "train.sequence_length=8",
    "train.global_batch_size=4",
    "optimizer.warmup_steps=0",
    "model.hidden_size=16",
    "model.moe.num_experts=4",
    "model.moe.expert_hidden_size=16",
    "model.moe.balance={loss { weight: 0.05 } bias_update_rate: 0.01 z_loss_weight: 0.01}"};

const MatrixCell kTensorAndExperts = {
    .name = "tensor 2, expert 2, expert-tensor 2, ZeRO 1, selective recompute",
    .trained = kTrained,
    .layout = {.ranks = 4,
               .expert_size = 2,
               .micro_batch_size = 1,
               .zero_stage = 1,
               .more = {"parallel.tensor_size=2", "parallel.expert_tensor_size=2",
                        "parallel.recompute=SELECTIVE"}},
    .reference = {}};

const MatrixCell kContextAndPipeline = {
    .name = "context 2, pipeline 2, expert 2, ZeRO 2",
    .trained = kTrained,
    .layout = {.ranks = 4,
               .expert_size = 2,
               .micro_batch_size = 2,
               .zero_stage = 2,
               .more = {"parallel.context_size=2", "parallel.pipeline_size=2",
                        "parallel.pipeline_schedule=ZB_H1"}},
    .reference = {}};

const MatrixCell kShares = {
    .name = "data 2, expert 2, ZeRO 3, all-gather, full recompute",
    .trained = kTrained,
    .layout = {.ranks = 2,
               .expert_size = 2,
               .micro_batch_size = 1,
               .zero_stage = 3,
               .more = {"parallel.dispatcher=ALL_GATHER", "parallel.recompute=FULL"}},
    .reference = {}};

const MatrixCell kCells[] = {kTensorAndExperts, kContextAndPipeline, kShares};

void ExpectPassed(const CellResult& result, const CellCheck& check) {
  EXPECT_TRUE(result.passed) << check.columns << "\n" << result.columns;
}

TEST(DeviceParity, InFP32) {
  for (const MatrixCell& cell : kCells) {
    SCOPED_TRACE(cell.name);
    ExpectPassed(kSingleCheck.run(cell), kSingleCheck);
  }
}

TEST(DeviceParity, InBF16) {
  for (const MatrixCell& cell : kCells) {
    SCOPED_TRACE(cell.name);
    ExpectPassed(CheckBrain(cell, /*num_seeds=*/3), kBrainCheck);
  }
}

}  // namespace
}  // namespace moebius
