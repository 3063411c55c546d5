#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "core/node.hpp"

namespace gallop {

/// A mistake or a remark, with the place that it is about.
struct Remark {
    Where where;
    std::string text;
};

/// Mistakes met while reading a manifest. A mistake in a layer that many items share is kept once;
/// of a flood, the first thousand are kept and the others counted.
class Problems {
public:
    static constexpr std::size_t most = 1000;

    void add(Where where, std::string text);
    /// A parser's message, whose place is taken out of it; where that names no line, or the text is one
    /// line of a file, `where` says it.
    void add_parsed(std::string_view message, Where where);
    bool empty() const { return remarks_.empty(); }
    /// Met so far, repetitions not counted.
    std::size_t count() const { return remarks_.size() + dropped_; }
    const std::vector<Remark>& all() const { return remarks_; }
    /// Throws InputError with all of them, one a line, in the order of their places; does nothing
    /// when there are none.
    void raise() const;

private:
    std::vector<Remark> remarks_;
    std::unordered_set<std::string> seen_;
    std::size_t dropped_ = 0;
};

/// Why `path` is not there to be used: "there is no such file" (`what`: "file", "folder"), or "it may not
/// be looked at: permission denied" where a folder above it is closed.
std::string absence(const std::filesystem::path& path, std::string_view what);

/// Does `act` with each of the words that a person gave. Throws InputError with what was wrong with
/// any of them, one text a line, each once.
void for_each_word(const std::vector<std::string>& words,
                   const std::function<void(const std::string& word)>& act);

}  // namespace gallop
