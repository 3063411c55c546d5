#pragma once

#include <string>

namespace gallop {

/// Now, as 2026-11-22T06:48:01Z.
std::string utc_text();

}  // namespace gallop
