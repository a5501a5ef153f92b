#include "kernels/cuda/nccl_functions.h"

#include <dlfcn.h>

#include <cstdlib>

namespace moebius::cuda {
namespace {

template <class Function>
bool Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

bool FindAll(void* library, NcclFunctions* f) {
  return Find(library, "ncclGetVersion", &f->get_version) &&
         Find(library, "ncclGetUniqueId", &f->get_unique_id) &&
         Find(library, "ncclCommInitRank", &f->comm_init_rank) &&
         Find(library, "ncclCommDestroy", &f->comm_destroy) &&
         Find(library, "ncclCommAbort", &f->comm_abort) &&
         Find(library, "ncclCommGetAsyncError", &f->comm_get_async_error) &&
         Find(library, "ncclGetErrorString", &f->get_error_string) &&
         Find(library, "ncclGetLastError", &f->get_last_error) &&
         Find(library, "ncclGroupStart", &f->group_start) &&
         Find(library, "ncclGroupEnd", &f->group_end) && Find(library, "ncclSend", &f->send) &&
         Find(library, "ncclRecv", &f->recv) && Find(library, "ncclAllGather", &f->all_gather) &&
         Find(library, "ncclBroadcast", &f->broadcast);
}

}  // namespace

bool OpenNccl(const std::string& library, NcclFunctions* functions, std::string* reason) {
  // Connections are made when ranks join, where a rank that does not come is waited for with a
  // deadline, and not by the first exchange of each kind.
  ::setenv("NCCL_RUNTIME_CONNECT", "0", /*overwrite=*/0);
  void* const opened = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) {
    *reason = dlerror();
    return false;
  }
  int version = 0;
  if (!FindAll(opened, functions)) {
    *reason = library + " is not NCCL, or an older one than 2.14: " + dlerror();
    return false;
  }
  if (functions->get_version(&version) != kNcclSuccess || version < kNcclVersion) {
    *reason = library + " is older than NCCL 2.14";
    return false;
  }
  return true;
}

}  // namespace moebius::cuda
