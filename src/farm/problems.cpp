#include "farm/problems.hpp"

#include <algorithm>
#include <tuple>

#include <fmt/format.h>

#include "core/error.hpp"

namespace gallop {

void Problems::add(Where where, std::string text) {
    if (remarks_.size() >= most) {
        ++dropped_;
        return;
    }
    if (seen_.insert(fmt::format("{}: {}", to_string(where), text)).second)
        remarks_.push_back({std::move(where), std::move(text)});
}

void Problems::raise() const {
    if (empty()) return;
    std::vector<const Remark*> sorted;
    for (const Remark& one : remarks_) sorted.push_back(&one);
    std::stable_sort(sorted.begin(), sorted.end(), [](const Remark* a, const Remark* b) {
        return std::tie(a->where.file, a->where.line, a->where.column) <
               std::tie(b->where.file, b->where.line, b->where.column);
    });
    std::string text;
    for (const Remark* one : sorted)
        text += fmt::format("{}{}: {}", text.empty() ? "" : "\n", to_string(one->where), one->text);
    if (dropped_ > 0) text += fmt::format("\n… and {} more mistakes", dropped_);
    throw InputError(text);
}

}  // namespace gallop
