#include "core/check.hpp"
#include "core/group.hpp"

namespace gallop {

std::unique_ptr<Group> make_gloo_group(const GroupSeat& seat) {
    throw_input_error(
        "a group of {} renderers on the CPU needs Gloo, which this program was built without",
        seat.size);
}

}  // namespace gallop
