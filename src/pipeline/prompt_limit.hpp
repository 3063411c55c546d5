#pragma once

#include <memory>
#include <string>

#include "pipeline/model_choice.hpp"

namespace gallop {

/// Tells which prompts are longer than what the transformers read of them. Reads no weights.
class PromptLimit {
public:
    explicit PromptLimit(const ModelChoice& choice);
    ~PromptLimit();
    PromptLimit(PromptLimit&&) noexcept;
    PromptLimit& operator=(PromptLimit&&) noexcept;

    /// A line about the end that is not read; "" when all is. Counted by the folder's tokenizer, which is opened
    /// for the first prompt that may be too long; where it cannot be, estimated from the length.
    std::string excess(const std::string& prompt);

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace gallop
