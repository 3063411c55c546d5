#include "farm/prompt_notes.hpp"

#include <fmt/format.h>

#include "core/error.hpp"

namespace gallop {

void PromptNotes::check(const Expansion& one, Problems& problems, Problems& notes) {
    const Item& item = one.resolved.item;
    const auto look = [&](ItemField field, const std::string& prompt, std::string& last) {
        const Assignment* set = one.fields.at(field);
        if (prompt == last || set == nullptr) return;
        last = prompt;
        try {
            if (const std::string excess = limit_.excess(prompt); !excess.empty())
                notes.add(set->where, fmt::format("item \"{}\": {}: {}", one.name,
                                                  item_field(field).path, excess));
        } catch (const InputError& wrong) {
            problems.add(set->where, wrong.what());
        }
    };
    look(ItemField::prompt, item.prompt, last_[0]);
    look(ItemField::negative_prompt, item.negative_prompt, last_[1]);
}

}  // namespace gallop
