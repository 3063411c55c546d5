#pragma once

#include <memory>

#include "core/memory_use.hpp"
#include "ops/backend.hpp"

namespace gallop {

/// A backend that computes nothing: its arrays are addresses that nobody may read, and it counts them.
/// A network run on it tells how much memory the same run takes on a device, without what the device's
/// libraries need of their own, and how often it makes the host wait. Shapes and dtypes are checked as everywhere. Downloaded arrays hold
/// no values.
class DryBackend : public Backend {
public:
    virtual CountedMemory& counted() = 0;
};
std::unique_ptr<DryBackend> make_dry_backend();

/// A member of a group of `size` whose sums change nothing: what a sharded network takes.
std::unique_ptr<Group> make_dry_group(int size);

}  // namespace gallop
