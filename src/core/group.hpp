#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <vector>

#include "core/error.hpp"
#include "core/tensor.hpp"

namespace gallop {

/// A member of the group is gone, silent or at odds with the others. No member's result can be
/// believed any more; the group ends as a whole and is made anew.
struct GroupError : Error {
    using Error::Error;
};

/// One member's place in a group.
struct GroupSeat {
    int rank = 0;
    int size = 1;
    /// An empty folder that all members see, for this group alone: where they find one another.
    std::filesystem::path rendezvous;
    /// How long to wait for the others, in joining and in each sum but those that `allow_late` spoke of.
    std::chrono::milliseconds patience{60'000};
};

/// How much later than another a member may be ready with its weights: one reads them from memory, another
/// over a network.
constexpr std::chrono::minutes loading_patience{30};

/// The renderers that share an item (tensor parallel), as one of them sees it. Not thread-safe.
class Group {
public:
    Group() = default;
    virtual ~Group() = default;
    Group(const Group&) = delete;
    Group& operator=(const Group&) = delete;

    virtual int rank() const = 0;
    virtual int size() const = 0;
    /// x ← the sum of all members' x, the same bits for every member and every time. x: f32 of one
    /// shape; on the device that the group was made for. Throws GroupError.
    virtual void sum(TensorView x) = 0;
    /// The others may come so late to the next sum, however little patience this group has else. For what
    /// takes some members longer than others, such as loading weights.
    virtual void allow_late(std::chrono::milliseconds /*patience*/) {}
    /// Throws GroupError when a sum asked for earlier has failed; on a device that computes behind
    /// our back, call it before a result is believed.
    virtual void check() {}
};

/// What the environment of a member's process must hold: NCCL as it is chooses among ways to sum of which one (in
/// the switches, NVLS) gives other bits from call to call. Source: NVIDIA/nccl issues 1497 and 2360.
std::vector<std::pair<std::string, std::string>> group_environment();

/// The group of one, whose sums change nothing.
Group& solo_group();

/// `size` members for as many threads of this process, over host arrays. A member that is destroyed
/// or fails ends the others' sums with GroupError.
std::vector<std::unique_ptr<Group>> make_thread_group(int size, std::chrono::milliseconds patience);

/// Joins a group of processes of this machine, over host arrays (Gloo, TCP on the loopback
/// interface). Throws GroupError when the others don't come in time, InputError in a build without
/// Gloo.
std::unique_ptr<Group> make_gloo_group(const GroupSeat& seat);

}  // namespace gallop
