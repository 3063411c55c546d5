#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "core/group.hpp"
#include "farm/plan_index.hpp"
#include "farm/stages.hpp"

namespace gallop {

struct RendererOptions {
    int descriptor = 3;  ///< its end of the socket pair
    std::filesystem::path directory;
    int slot = 0;
    GroupSeat seat;  ///< among those that share an item; rank 0 leads: it writes the files
    double beat_seconds = 0.5;
};

/// What renders: the stages, which own all that they need, and the device's name.
struct Engine {
    Stages stages;
    std::string device;
};
using MakeEngine = std::function<Engine(const RunConfig& config, const GroupSeat& seat)>;

/// The whole life of a renderer: a child process of an agent that owns one device. It takes items
/// one at a time from the socket, renders them (or adopts what is there already and whole) and says
/// what came of each; while the files of one are finished, the device has the next. A thread of its own keeps saying that it lives and how far it is, and ends
/// the process when the agent is gone. Blocks all signals that ask for an orderly end: the agent
/// alone decides. Returns the exit code.
int run_renderer(const RendererOptions& options, const MakeEngine& make_engine);

}  // namespace gallop
