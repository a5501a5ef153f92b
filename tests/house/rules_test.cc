// Each rule finds what breaks it, and leaves alone what does not.

#include "tests/house/rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moebius::house {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

SourceTree OneFile(std::string path, std::vector<std::string> lines) {
  return {SourceFile{.path = std::move(path), .lines = std::move(lines)}};
}

Findings FloorsOf(const std::string& path, const std::string& include) {
  return CheckFloors(OneFile(path, {"#include " + include}));
}

TEST(Floors, LowerFloorsAndOwnFolderAreAllowed) {
  EXPECT_THAT(FloorsOf("model/moe/router.cc", "\"kernels/top_k.h\""), IsEmpty());
  EXPECT_THAT(FloorsOf("model/moe/router.cc", "\"model/moe/plan.h\""), IsEmpty());
  EXPECT_THAT(FloorsOf("model/spec.cc", "\"configs/model.pb.h\""), IsEmpty());
  EXPECT_THAT(FloorsOf("kernels/top_k.cc", "<vector>"), IsEmpty());
  EXPECT_THAT(FloorsOf("kernels/ops/norm_test.cc", "\"tests/testing/gradient_check.h\""),
              IsEmpty());
}

TEST(Floors, HigherFloorIsFound) {
  EXPECT_THAT(FloorsOf("kernels/cpu/gemm.cc", "\"model/block.h\""),
              ElementsAre(HasSubstr("kernels/cpu/gemm.cc:1: includes \"model/block.h\"")));
  EXPECT_THAT(FloorsOf("kernels/cuda/gemm.cu", "\"model/block.h\""), testing::SizeIs(1));
  EXPECT_THAT(FloorsOf("kernels/cuda/gemm.cuh", "\"train/trainer.h\""), testing::SizeIs(1));
}

TEST(Floors, FoldersOfOneFloorDoNotKnowEachOther) {
  EXPECT_THAT(FloorsOf("data/batch.h", "\"parallel/mesh.h\""), testing::SizeIs(1));
  EXPECT_THAT(FloorsOf("parallel/mesh.h", "\"data/batch.h\""), testing::SizeIs(1));
}

TEST(Floors, ProtosStayOutOfCoreAndKernels) {
  EXPECT_THAT(FloorsOf("kernels/top_k.h", "\"configs/moe.pb.h\""), testing::SizeIs(1));
  EXPECT_THAT(FloorsOf("core/tensor/tensor.h", "\"configs/model.pb.h\""), testing::SizeIs(1));
  EXPECT_THAT(FloorsOf("core/tensor/tensor.h", "\"configs/load.h\""), testing::SizeIs(1));
}

TEST(Floors, IncludesAreWrittenFromTheRoot) {
  const SourceTree tree = {
      {.path = "core/tensor/tensor.h", .lines = {}},
      {.path = "core/tensor/tensor.cc",
       .lines = {"#include \"tensor.h\"", "#include \"absl/status/status.h\""}}};
  EXPECT_THAT(CheckFloors(tree), ElementsAre(HasSubstr("core/tensor/tensor.cc:1: ")));
  EXPECT_THAT(FloorsOf("core/tensor/tensor.cc", "\"../base/check.h\""), testing::SizeIs(1));
}

TEST(Floors, OnlyTestsUseTestHelpers) {
  EXPECT_THAT(FloorsOf("kernels/ops/norm.cc", "\"tests/testing/gradient_check.h\""),
              testing::SizeIs(1));
}

Findings HomesOf(const std::string& path, const std::string& include) {
  return CheckLibraryHomes(OneFile(path, {"", "#include <" + include + ">"}));
}

TEST(LibraryHomes, EachLibraryIsFoundOutsideItsHome) {
  EXPECT_THAT(
      HomesOf("kernels/cpu/gemm.cc", "cuda_runtime.h"),
      ElementsAre(HasSubstr("kernels/cpu/gemm.cc:2: includes cuda_runtime.h; CUDA is at home")));
  EXPECT_THAT(HomesOf("model/block.cc", "cub/cub.cuh"), testing::SizeIs(1));
  EXPECT_THAT(HomesOf("parallel/mesh.cc", "nccl.h"), testing::SizeIs(1));
  EXPECT_THAT(HomesOf("train/trainer.cc", "mpi.h"), testing::SizeIs(1));
  EXPECT_THAT(HomesOf("parallel/board.cc", "grpcpp/grpcpp.h"), testing::SizeIs(1));
  EXPECT_THAT(HomesOf("kernels/reference/gemm.cc", "oneapi/dnnl/dnnl.hpp"), testing::SizeIs(1));
  EXPECT_THAT(HomesOf("data/corpus.cc", "sentencepiece_processor.h"), testing::SizeIs(1));
}

TEST(LibraryHomes, AtHomeIsAllowed) {
  EXPECT_THAT(HomesOf("kernels/cuda/gemm.cu", "cuda_bf16.h"), IsEmpty());
  EXPECT_THAT(HomesOf("kernels/cuda/nccl.cc", "nccl.h"), IsEmpty());
  EXPECT_THAT(HomesOf("parallel/mpi_communicator_test.cc", "mpi.h"), IsEmpty());
  EXPECT_THAT(HomesOf("launcher/start_up.cc", "mpi.h"), IsEmpty());
  EXPECT_THAT(HomesOf("launcher/job_service.cc", "grpcpp/grpcpp.h"), IsEmpty());
  EXPECT_THAT(HomesOf("tests/bench/onednn.cc", "dnnl.hpp"), IsEmpty());
  EXPECT_THAT(HomesOf("data/tokenizer/plugin.cc", "sentencepiece_trainer.h"), IsEmpty());
}

TEST(ProtoComments, FieldWithoutCommentIsFound) {
  const SourceTree tree =
      OneFile("configs/a.proto", {
                                     "message A {",
                                     "  // Steps. Default 0.",
                                     "  optional int64 steps = 1 [default = 0];",
                                     "  optional int64 bare = 2;",
                                     "  repeated string files = 3;  // paths",
                                     "  enum Kind {",
                                     "    NONE = 1;",
                                     "  }",
                                     "  map<string, int32> sizes = 4;",
                                     "}",
                                 });
  EXPECT_THAT(CheckProtoComments(tree), ElementsAre(HasSubstr("configs/a.proto:4: field bare"),
                                                    HasSubstr("configs/a.proto:9: field sizes")));
}

TEST(FileSizes, LargeFileNeedsAReason) {
  const SourceTree large = OneFile("core/a.cc", std::vector<std::string>(401, "x"));
  const SourceTree full = OneFile("core/a.cc", std::vector<std::string>(400, "x"));
  EXPECT_THAT(CheckFileSizes(large, {}), ElementsAre(HasSubstr("core/a.cc: 401 lines")));
  EXPECT_THAT(CheckFileSizes(full, {}), IsEmpty());
  EXPECT_THAT(CheckFileSizes(large, {"# comment", "core/a.cc  one table"}), IsEmpty());
  EXPECT_THAT(CheckFileSizes(large, {"core/a.cc"}), ElementsAre(HasSubstr("needs a reason")));
}

TEST(FileSizes, ExceptionThatIsNotNeededIsFound) {
  const SourceTree small = OneFile("core/a.cc", {"x"});
  EXPECT_THAT(CheckFileSizes(small, {"core/a.cc  one table"}),
              ElementsAre(HasSubstr("take it out of large_files.txt")));
  EXPECT_THAT(CheckFileSizes(small, {"core/gone.cc  one table"}),
              ElementsAre(HasSubstr("not in the tree")));
}

TEST(Readmes, MissingPageIsFound) {
  EXPECT_THAT(CheckReadmesExist(OneFile("core/tensor/a.h", {})),
              ElementsAre("core/README.md: missing"));
  EXPECT_THAT(CheckReadmesExist(OneFile("core/tensor/README.md", {})), testing::SizeIs(1));
  EXPECT_THAT(CheckReadmesExist(OneFile("core/README.md", {})), IsEmpty());
}

TEST(Readmes, LongPageIsFound) {
  const auto page = [](int num_lines) {
    return OneFile("core/tensor/README.md", std::vector<std::string>(num_lines, "x"));
  };
  EXPECT_THAT(CheckReadmeLengths(page(40)), IsEmpty());
  EXPECT_THAT(CheckReadmeLengths(page(41)),
              ElementsAre(HasSubstr("core/tensor/README.md: 41 lines")));
}

TEST(Todos, OwnerIsAskedFor) {
  EXPECT_THAT(CheckTodos(OneFile("core/a.cc", {"// TODO: later"})),
              ElementsAre(HasSubstr("core/a.cc:1: ")));
  EXPECT_THAT(CheckTodos(OneFile("core/a.cc", {"// FIXME"})), testing::SizeIs(1));
  EXPECT_THAT(CheckTodos(OneFile("core/a.cc", {"// TODO(ada): measure", "TODOS"})), IsEmpty());
}

TEST(MachinePaths, AbsolutePathsOfAMachineAreFound) {
  EXPECT_THAT(CheckMachinePaths(OneFile("a.sh", {"cd /home/ada/x"})),
              ElementsAre(HasSubstr("a.sh:1: ")));
  EXPECT_THAT(CheckMachinePaths(OneFile("a.sh", {"x=\"/root/.cache\""})), testing::SizeIs(1));
  EXPECT_THAT(CheckMachinePaths(OneFile("a.sh", {"x=/mnt/data"})), testing::SizeIs(1));
  EXPECT_THAT(CheckMachinePaths(OneFile("a.md", {"runs/work/x and at home/x, /usr/bin/x"})),
              IsEmpty());
}

TEST(PythonHomes, PythonElsewhereIsFound) {
  EXPECT_THAT(CheckPythonHomes(OneFile("train/plot.py", {})), testing::SizeIs(1));
  EXPECT_THAT(CheckPythonHomes(OneFile("tests/golden/make.py", {})), IsEmpty());
}

TEST(PragmaOnce, HeaderWithoutItIsFound) {
  EXPECT_THAT(CheckPragmaOnce(OneFile("core/a.h", {"#include <vector>", "#pragma once"})),
              testing::SizeIs(1));
  EXPECT_THAT(CheckPragmaOnce(OneFile("core/a.h", {"// Words.", "", "#pragma once"})), IsEmpty());
}

}  // namespace
}  // namespace moebius::house
