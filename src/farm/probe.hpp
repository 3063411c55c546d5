#pragma once

#include <cstddef>

#include "farm/calibration.hpp"
#include "farm/plan.hpp"
#include "pipeline/render.hpp"

namespace gallop {

/// Renders `count` of a manifest's items, fewer where it has fewer, and takes a device's rates from
/// them: one item of each bucket first, those buckets in which most time is expected first. What is
/// rendered goes to a folder of its own under the system's temporary one, and is removed. Starts
/// from `options.calibration`, whose rates stay for stages that none of the items has. Throws what
/// `make_plan` and `render_item` throw.
Calibration probe_rates(const Manifest& manifest, const PlanOptions& options, Backend& backend,
                        std::size_t count);

}  // namespace gallop
