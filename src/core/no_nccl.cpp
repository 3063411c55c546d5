#include "core/check.hpp"
#include "core/group_nccl.hpp"

namespace gallop {

std::unique_ptr<Group> make_nccl_group(const GroupSeat& seat, cudaStream_t /*stream*/) {
    throw_input_error("a group of {} GPUs needs NCCL, which this program was built without",
                      seat.size);
}

}  // namespace gallop
