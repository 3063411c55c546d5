#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "farm/calibration.hpp"
#include "farm/run_config.hpp"
#include "pipeline/work.hpp"

namespace gallop {

/// What one item will take, as a plan predicts it.
struct ItemCost {
    PerStage stages{};        ///< seconds
    double seconds = 0;       ///< of them all
    int gpus = 1;             ///< that share it
    double memory_bytes = 0;  ///< of each
    double clip_bytes = 0;
    double latents_bytes = 0;
};

/// Predicts items from the shapes of the networks and a device's rates.
class CostModel {
public:
    /// `request` must outlive it. Throws InputError when the model folder is wrong.
    CostModel(const RunRequest& request, Calibration calibration);

    ItemCost of(const Item& item) const;
    const Calibration& calibration() const { return calibration_; }
    const WorkModel& work() const { return work_; }

private:
    const RunRequest& request_;
    Calibration calibration_;
    WorkModel work_;
};

/// Share of a device's memory that the engine may count on; the rest is the driver's, the
/// libraries' and what fragments.
inline constexpr double usable_memory = 0.94;

/// When the last of `workers` is done, each taking the longest item that is left: the schedule that
/// the coordinator follows. `seconds`: of each item; sorted in place.
double makespan(std::vector<float>& seconds, std::size_t workers);

/// A time limit to ask Slurm for: what is predicted, a fifth more, starting and the reserve, in
/// full quarters of an hour. "[D-]HH:MM:SS".
std::string suggested_time(double seconds, double reserve_seconds);

}  // namespace gallop
