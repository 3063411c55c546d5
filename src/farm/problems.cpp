#include "farm/problems.hpp"

#include <algorithm>
#include <cstdio>
#include <tuple>

#include <fmt/format.h>
#include <fmt/ranges.h>

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

void Problems::add_parsed(std::string_view message, Where where) {
    std::string text(message);
    if (const std::string start = where.file + ":"; text.starts_with(start)) {
        text.erase(0, start.size());
        int line = 0;
        int column = 0;
        int length = 0;
        if (std::sscanf(text.c_str(), "%d:%d:%n", &line, &column, &length) == 2 && length > 0) {
            if (where.line == 0) where.line = line;
            where.column = column;
            text.erase(0, static_cast<std::size_t>(length));
        }
        text.erase(0, std::min(text.find_first_not_of(' '), text.size()));
    }
    add(std::move(where), std::move(text));
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

std::string absence(const std::filesystem::path& path, std::string_view what) {
    std::error_code failed;
    static_cast<void>(std::filesystem::status(path, failed));
    return failed == std::errc::permission_denied ? "it may not be looked at: permission denied"
                                                  : fmt::format("there is no such {}", what);
}

void for_each_word(const std::vector<std::string>& words,
                   const std::function<void(const std::string&)>& act) {
    std::vector<std::string> mistakes;
    for (const std::string& word : words) {
        try {
            act(word);
        } catch (const InputError& wrong) {
            if (std::find(mistakes.begin(), mistakes.end(), wrong.what()) == mistakes.end())
                mistakes.emplace_back(wrong.what());
        }
    }
    if (!mistakes.empty()) throw InputError(fmt::format("{}", fmt::join(mistakes, "\n")));
}

}  // namespace gallop
