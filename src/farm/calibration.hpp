#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "farm/plan_index.hpp"
#include "pipeline/work.hpp"

namespace gallop {

/// What a device needs for work: seconds = fixed + rate × amount, by stage.
struct Calibration {
    struct Rate {
        double seconds_per_unit = 0;  ///< of a FLOP; for `write`, of a pixel
        double seconds = 0;           ///< whatever the amount
        bool measured = false;        ///< else a planner's guess
    };
    std::string device;       ///< "cpu", "h100"
    std::string precision;    ///< of the transformers: "fp32", "bf16", "fp8"
    double memory_bytes = 0;  ///< of one device; 0: not looked at
    std::array<Rate, stage_count> rates{};

    Rate& at(Stage stage) { return rates[static_cast<std::size_t>(stage)]; }
    const Rate& at(Stage stage) const { return rates[static_cast<std::size_t>(stage)]; }
    /// Seconds by stage of so much work.
    PerStage seconds(const ClipWork& work) const;
};

/// Reads a calibration file: {"device", "memory_bytes", "precisions": {"bf16": {STAGE:
/// {"seconds_per_unit", "seconds", "measured"}}}}. A precision that the file lacks is taken from
/// the nearest that it has. Throws InputError.
Calibration read_calibration(const std::filesystem::path& path, const std::string& precision);

/// The calibration for a device: what was measured on this machine, where `cache` holds it, else
/// what is shipped under `configs/calibration`. Throws InputError that names the known devices.
Calibration find_calibration(const std::string& device, const std::string& precision,
                             const std::filesystem::path& cache);

/// Writes the rates of one precision into a calibration file, other precisions kept. Throws Error.
void write_calibration(const std::filesystem::path& path, const Calibration& calibration);

/// One clip that was rendered: its work, and what it took by stage, 0 where it has no such stage.
struct Measured {
    ClipWork work;
    PerStage seconds{};
};

/// Rates that explain what was measured; stages that nothing was measured of keep theirs. Where
/// clips differ in work, the fixed part is told from the rate by least squares.
Calibration calibrated(Calibration from, const std::vector<Measured>& clips);

/// The clips that a run has finished, up to `most`, by its journal and its lock.
std::vector<Measured> measured_clips(const std::filesystem::path& run, std::size_t most = 10'000);

}  // namespace gallop
