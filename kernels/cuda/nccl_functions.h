// The functions of NCCL that we use, found in its library when the program runs: a machine without
// it is served as well. Declared here, as its header needs CUDA's: nccl_header_check.cu holds them
// to it where there is one. Documentation: docs.nvidia.com/deeplearning/nccl, "NCCL API".
#pragma once

#include <cstddef>
#include <string>

namespace moebius::cuda {

struct NcclId {
  char internal[128];
};
using NcclComm = struct NcclCommunicator*;

inline constexpr int kNcclSuccess = 0;
inline constexpr int kNcclInProgress = 7;
inline constexpr int kNcclUint8 = 1;        // ncclDataType_t: bytes are all that we send
inline constexpr int kNcclVersion = 21400;  // the oldest that we take: 2.14

struct NcclFunctions {
  int (*get_version)(int* version) = nullptr;
  int (*get_unique_id)(NcclId* id) = nullptr;
  int (*comm_init_rank)(NcclComm* comm, int num_ranks, NcclId id, int rank) = nullptr;
  int (*comm_destroy)(NcclComm comm) = nullptr;
  int (*comm_abort)(NcclComm comm) = nullptr;
  int (*comm_get_async_error)(NcclComm comm, int* error) = nullptr;
  const char* (*get_error_string)(int result) = nullptr;
  const char* (*get_last_error)(NcclComm comm) = nullptr;
  int (*group_start)() = nullptr;
  int (*group_end)() = nullptr;
  int (*send)(const void* from, size_t count, int dtype, int peer, NcclComm comm,
              void* stream) = nullptr;
  int (*recv)(void* to, size_t count, int dtype, int peer, NcclComm comm, void* stream) = nullptr;
  int (*all_gather)(const void* mine, void* all, size_t count, int dtype, NcclComm comm,
                    void* stream) = nullptr;
  int (*broadcast)(const void* from, void* to, size_t count, int dtype, int root, NcclComm comm,
                   void* stream) = nullptr;
};

// `library`: as dlopen takes it, which is what says where it is looked for. False: `reason` says
// why. It stays open.
bool OpenNccl(const std::string& library, NcclFunctions* functions, std::string* reason);

}  // namespace moebius::cuda
