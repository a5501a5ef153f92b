// Limited by nothing: it compares nccl_functions.h with NCCL's own header, where there is one.
#include "kernels/cuda/nccl_functions.h"

#if __has_include(<nccl.h>)
#include <nccl.h>

#include <type_traits>

namespace moebius::cuda {
namespace {

// The type that a value of NCCL has for us: enums as int, handles as pointers of one size.
template <class T>
constexpr bool kIsHandle = std::is_pointer_v<T>;

template <class Ours, class Theirs>
constexpr bool kAlike = std::is_same_v<Ours, Theirs> ||
                        (std::is_enum_v<Theirs> && std::is_same_v<Ours, int> &&
                         sizeof(Theirs) == sizeof(int)) ||
                        (kIsHandle<Ours> && kIsHandle<Theirs>) ||
                        (std::is_class_v<Theirs> && sizeof(Ours) == sizeof(Theirs) &&
                         alignof(Ours) == alignof(Theirs));

template <class Ours, class Theirs>
struct Same : std::false_type {};
template <class R, class... A, class S, class... B>
struct Same<R (*)(A...), S (*)(B...)>
    : std::bool_constant<sizeof...(A) == sizeof...(B) && kAlike<R, S>> {
  static_assert((kAlike<A, B> && ...));
};

#define SAME(member, function) \
  static_assert(Same<decltype(NcclFunctions::member), decltype(&function)>::value)
SAME(get_version, ncclGetVersion);
SAME(get_unique_id, ncclGetUniqueId);
SAME(comm_init_rank, ncclCommInitRank);
SAME(comm_destroy, ncclCommDestroy);
SAME(comm_abort, ncclCommAbort);
SAME(comm_get_async_error, ncclCommGetAsyncError);
SAME(get_error_string, ncclGetErrorString);
SAME(get_last_error, ncclGetLastError);
SAME(group_start, ncclGroupStart);
SAME(group_end, ncclGroupEnd);
SAME(send, ncclSend);
SAME(recv, ncclRecv);
SAME(all_gather, ncclAllGather);
SAME(broadcast, ncclBroadcast);
#undef SAME

static_assert(sizeof(NcclId) == sizeof(ncclUniqueId));
static_assert(kNcclSuccess == ncclSuccess && kNcclInProgress == ncclInProgress);
static_assert(kNcclUint8 == ncclUint8);

}  // namespace
}  // namespace moebius::cuda

#endif
