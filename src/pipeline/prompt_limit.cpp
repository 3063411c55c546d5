#include "pipeline/prompt_limit.hpp"

#include <optional>
#include <utility>

#include <fmt/format.h>

#include "core/error.hpp"
#include "model/bundle.hpp"
#include "model/text_features.hpp"
#include "pipeline/work.hpp"

namespace gallop {

struct PromptLimit::State {
    ModelChoice choice;
    bool opened = false;
    std::optional<Tokenizer> tokenizer = {};

    void open() {
        if (std::exchange(opened, true)) return;
        try {
            tokenizer.emplace(
                Tokenizer::open(open_bundle(choice.path, choice.arch).text_encoder()));
        } catch (const InputError&) {  // whoever needs it says what is wrong with it
        }
    }
};

PromptLimit::PromptLimit(const ModelChoice& choice) : state_(new State{choice}) {}
PromptLimit::~PromptLimit() = default;
PromptLimit::PromptLimit(PromptLimit&&) noexcept = default;
PromptLimit& PromptLimit::operator=(PromptLimit&&) noexcept = default;

std::string PromptLimit::excess(const std::string& prompt) {
    // A token stands for a byte at least, but for the two around the prompt.
    if (static_cast<Index>(prompt.size()) + 2 <= max_text_rows) return {};
    State& s = *state_;
    s.open();
    if (s.tokenizer) return excess_of(prompt, s.tokenizer->encode(prompt));
    const double about = estimated_tokens(prompt);
    if (about <= max_text_rows) return {};
    return fmt::format(
        "the prompt has about {:.0f} tokens and the network takes {}; the end is cut", about,
        max_text_rows);
}

}  // namespace gallop
