#pragma once

#include <array>
#include <string>

#include "farm/expand.hpp"
#include "farm/problems.hpp"
#include "farm/run_config.hpp"
#include "pipeline/prompt_limit.hpp"

namespace gallop {

/// Notes prompts of a manifest of which the network does not read the end.
class PromptNotes {
public:
    explicit PromptNotes(const ModelRequest& model) : limit_(model.choice()) {}

    /// Adds to `notes`, at the place where the prompt stands; to `problems` what no tokenizer takes.
    void check(const Expansion& one, Problems& problems, Problems& notes);

private:
    PromptLimit limit_;
    std::array<std::string, 2> last_;  ///< prompts that were looked at: cells of a sweep share them
};

}  // namespace gallop
