#pragma once

#include <cstddef>

namespace gallop {

/// The most scratch memory that a device's library may take for one op, in bytes: what asks for more is refused
/// or done in parts, and a stage has room for it.
constexpr std::size_t most_workspace = std::size_t{128} << 20;

}  // namespace gallop
