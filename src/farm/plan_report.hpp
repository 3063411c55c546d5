#pragma once

#include <cstddef>
#include <string>

#include <nlohmann/json.hpp>

#include "farm/plan.hpp"

namespace gallop {

/// What `gallop plan` says about a plan: counts, predictions by stage and bucket, bytes, files, when
/// `workers` will be done, a time limit for Slurm. Sorts the plan's seconds.
nlohmann::json plan_report(PlanResult& plan, const Calibration& calibration, std::size_t workers);

/// The same as a page of text.
std::string plan_text(const nlohmann::json& report);

}  // namespace gallop
