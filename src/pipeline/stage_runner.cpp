#include "pipeline/stage_runner.hpp"

#include <algorithm>

#include "pipeline/memory.hpp"

namespace gallop {
namespace {

/// The entry of that name, made where there is none.
template <class Value>
Value& entry(std::vector<std::pair<std::string, Value>>& list, const std::string& name) {
    const auto found =
        std::find_if(list.begin(), list.end(), [&](const auto& one) { return one.first == name; });
    return found != list.end() ? found->second : list.emplace_back(name, Value{}).second;
}

}  // namespace

StageRunner::Watch::Watch(StageRunner& runner, const std::string& name, std::size_t arrays)
    : runner_(runner), name_(name), arrays_(arrays) {
    CountedMemory* const memory = runner_.memory_;
    if (memory == nullptr) return;
    memory->restart_peak();
    if (arrays > 0) block_.emplace(memory, stage_bytes(arrays));
    asked_ = memory->use().asked;
}

StageRunner::Watch::~Watch() {
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin_;
    entry(runner_.spent_.stages, name_) += spent.count();
    if (runner_.memory_ == nullptr) return;
    const MemoryUse use = runner_.memory_->use();
    StageMemoryUse& most = entry(runner_.spent_.memory, name_);
    most.peak = std::max(most.peak, use.peak);
    if (!block_) return;
    most.foretold = std::max(most.foretold, arrays_);
    most.extent = std::max(most.extent, block_->extent());
    most.asked = std::max(most.asked, use.asked - asked_);
}

}  // namespace gallop
