#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "farm/agent.hpp"

namespace gallop::test {

void rest(int milliseconds);

/// What a renderer's process does when its engine is a fake: it misbehaves as an item's prompt says.
/// Returns its exit code.
int be_a_renderer(const std::vector<std::string>& arguments);

/// An agent in a hurry, whose renderers are this program with "renderer" as its first argument.
AgentOptions quick_agent(const std::filesystem::path& run, std::size_t devices);

}  // namespace gallop::test
