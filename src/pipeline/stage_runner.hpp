#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/memory_use.hpp"

namespace gallop {

/// What a stage took of the device's memory; of several runs the most.
struct StageMemoryUse {
    /// Bytes that arrays held at the peak, weights of all loaded networks included; what the device's
    /// libraries take of their own isn't.
    std::size_t peak = 0;
    std::size_t foretold = 0;  ///< of its own arrays; 0: it has no block
    std::size_t extent = 0;    ///< of its block that was needed, workspaces included
    std::uint64_t asked = 0;   ///< how often it asked the device for more than its block
};

/// What a rendered clip cost, per stage, in order.
struct StageSeconds {
    std::vector<std::pair<std::string, double>> stages;
    /// Empty where the backend doesn't count.
    std::vector<std::pair<std::string, StageMemoryUse>> memory = {};
    Index strips = 0;  ///< that each picture was decoded in; 0: none was decoded
};

/// Runs a clip's stages: times them, and gives the arrays of each a block of the device's memory.
class StageRunner {
public:
    /// `memory`: null where the device doesn't count.
    explicit StageRunner(CountedMemory* memory) : memory_(memory) {}
    StageRunner(const StageRunner&) = delete;
    StageRunner& operator=(const StageRunner&) = delete;

    /// What `work` returns. arrays: bytes that its arrays take; 0: it gets no block. Arrays of the block
    /// don't outlive the work, or hold all of it.
    template <class Work>
    decltype(auto) run(const std::string& name, std::size_t arrays, const Work& work) {
        const Watch watch(*this, name, arrays);
        return work();
    }
    /// What was spent since the last call.
    StageSeconds take() { return std::exchange(spent_, {}); }

private:
    /// One run.
    class Watch {
    public:
        Watch(StageRunner& runner, const std::string& name, std::size_t arrays);
        ~Watch();
        Watch(const Watch&) = delete;
        Watch& operator=(const Watch&) = delete;

    private:
        StageRunner& runner_;
        const std::string& name_;
        std::size_t arrays_;
        std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
        std::optional<MemoryStage> block_;
        std::uint64_t asked_ = 0;  ///< before the work
    };

    CountedMemory* memory_;
    StageSeconds spent_;
};

}  // namespace gallop
