#include "core/reader.hpp"

#include <algorithm>
#include <deque>
#include <optional>
#include <tuple>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/check.hpp"
#include "core/scalar.hpp"

namespace gallop {

/// What was asked of one map.
struct Reader::Seen {
    const Node* map;  ///< nullptr: absent
    Where where;
    std::vector<std::string> known;
    bool ignore_unknown = false;
};

struct Reader::Log {
    struct Problem {
        Where where;
        std::string text;
    };
    std::deque<Seen> seen;  // readers hold addresses of its elements
    std::vector<Problem> problems;
};

namespace {

std::string need(const Range<std::int64_t>& range) {
    return fmt::format("must be a whole number from {} to {}", range.least, range.most);
}
std::string need(const Range<double>& range) {
    return fmt::format("must be a number from {} to {}", range.least, range.most);
}

std::optional<std::int64_t> number_in(const Node& node, const Range<std::int64_t>& range) {
    const auto value = as_whole(node);
    return value && *value >= range.least && *value <= range.most ? value : std::nullopt;
}
std::optional<double> number_in(const Node& node, const Range<double>& range) {
    const auto value = as_number(node);
    return value && *value >= range.least && *value <= range.most ? value : std::nullopt;
}

}  // namespace

Reader::Reader(const Node& root) : Reader(&root, std::make_shared<Log>()) {}

Reader::Reader(const Node* map, std::shared_ptr<Log> log) : map_(map), log_(std::move(log)) {
    const Where where = map == nullptr ? Where{} : map->where;
    if (map_ != nullptr && map_->kind != Node::Kind::map) {
        if (map_->kind != Node::Kind::null)
            log_->problems.push_back({where, fmt::format("{} (must be a map)", in_words(*map_))});
        map_ = nullptr;
    }
    log_->seen.push_back({map_, where, {}, false});
    seen_ = &log_->seen.back();
}

Reader::Reader(Reader&&) noexcept = default;
Reader::~Reader() = default;

const Node* Reader::node(std::string_view key) {
    if (std::find(seen_->known.begin(), seen_->known.end(), key) == seen_->known.end())
        seen_->known.emplace_back(key);
    return map_ == nullptr ? nullptr : map_->find(key);
}

bool Reader::has(std::string_view key) { return node(key) != nullptr; }

void Reader::problem(const Where& where, std::string text) {
    log_->problems.push_back({where, std::move(text)});
}

template <class T, class Parse>
T Reader::read(std::string_view key, T fallback, const std::string& needed, Parse&& parse) {
    const Node* found = node(key);
    if (found == nullptr) return fallback;
    if (auto value = parse(*found)) return std::move(*value);
    problem(found->where, fmt::format("{} is {} ({})", key, in_words(*found), needed));
    return fallback;
}

template <class T, class Parse>
std::vector<T> Reader::read_list(std::string_view key, std::vector<T> fallback,
                                 const std::string& needed, Parse&& parse) {
    const Node* found = node(key);
    if (found == nullptr) return fallback;
    if (found->kind != Node::Kind::sequence) {
        problem(found->where, fmt::format("{} is {} (must be a list)", key, in_words(*found)));
        return fallback;
    }
    std::vector<T> values;
    for (std::size_t i = 0; i < found->items.size(); ++i) {
        const Node& item = found->items[i];
        if (auto value = parse(item)) {
            values.push_back(std::move(*value));
        } else {
            problem(item.where, fmt::format("{}[{}] is {} ({})", key, i, in_words(item), needed));
        }
    }
    return values.size() == found->items.size() ? values : fallback;
}

bool Reader::get(std::string_view key, bool fallback) {
    return read(key, fallback, "must be true or false", as_flag);
}

std::int64_t Reader::get(std::string_view key, std::int64_t fallback, Range<std::int64_t> range) {
    return read(key, fallback, need(range), [&](const Node& n) { return number_in(n, range); });
}

int Reader::get(std::string_view key, int fallback, Range<int> range) {
    return static_cast<int>(
        get(key, std::int64_t{fallback}, Range<std::int64_t>{range.least, range.most}));
}

double Reader::get(std::string_view key, double fallback, Range<double> range) {
    return read(key, fallback, need(range), [&](const Node& n) { return number_in(n, range); });
}

std::string Reader::get(std::string_view key, const std::string& fallback) {
    return read(key, fallback, "must be text", as_text);
}

std::string Reader::get(std::string_view key, const char* fallback) {
    return get(key, std::string(fallback));
}

std::string Reader::choice(std::string_view key, const std::string& fallback,
                           const std::vector<std::string>& allowed) {
    const Node* found = node(key);
    if (found == nullptr) return fallback;
    const auto text = as_text(*found);
    if (text && std::find(allowed.begin(), allowed.end(), *text) != allowed.end()) return *text;
    const std::string near = text ? nearest(*text, allowed) : "";
    problem(found->where, fmt::format("{} is {} (must be one of: {}){}", key, in_words(*found),
                                      fmt::join(allowed, ", "),
                                      near.empty() ? "" : fmt::format("; did you mean {}?", near)));
    return fallback;
}

std::vector<std::int64_t> Reader::get_list(std::string_view key, std::vector<std::int64_t> fallback,
                                           Range<std::int64_t> range) {
    return read_list(key, std::move(fallback), need(range),
                     [&](const Node& n) { return number_in(n, range); });
}

std::vector<double> Reader::get_list(std::string_view key, std::vector<double> fallback,
                                     Range<double> range) {
    return read_list(key, std::move(fallback), need(range),
                     [&](const Node& n) { return number_in(n, range); });
}

std::vector<bool> Reader::get_list(std::string_view key, std::vector<bool> fallback) {
    return read_list(key, std::move(fallback), "must be true or false", as_flag);
}

std::vector<std::string> Reader::get_list(std::string_view key, std::vector<std::string> fallback) {
    return read_list(key, std::move(fallback), "must be text", as_text);
}

void Reader::require(std::string_view key) {
    if (!has(key)) problem(seen_->where, fmt::format("\"{}\" is missing (it is required)", key));
}

Reader Reader::child(std::string_view key) {
    const Node* found = node(key);
    Reader made(found, log_);
    if (found == nullptr) made.seen_->where = seen_->where;
    return made;
}

std::vector<Reader> Reader::children(std::string_view key) {
    std::vector<Reader> made;
    const Node* found = node(key);
    if (found == nullptr || found->kind == Node::Kind::null) return made;
    if (found->kind != Node::Kind::sequence) {
        problem(found->where, fmt::format("{} is {} (must be a list)", key, in_words(*found)));
        return made;
    }
    for (const Node& item : found->items) made.push_back(Reader(&item, log_));
    return made;
}

void Reader::problem(std::string_view key, std::string text) {
    problem(where(key), std::move(text));
}

Where Reader::where(std::string_view key) const {
    const Node* found = key.empty() || map_ == nullptr ? nullptr : map_->find(key);
    return found == nullptr ? seen_->where : found->where;
}

void Reader::ignore_unknown() { seen_->ignore_unknown = true; }

std::vector<std::string> Reader::problems() {
    std::vector<Log::Problem> all = log_->problems;
    for (const Seen& seen : log_->seen) {
        if (seen.map == nullptr || seen.ignore_unknown) continue;
        for (const auto& [key, value] : seen.map->entries) {
            if (std::find(seen.known.begin(), seen.known.end(), key.scalar) != seen.known.end())
                continue;
            const std::string near = nearest(key.scalar, seen.known);
            all.push_back(
                {key.where, near.empty()
                                ? fmt::format("unknown key \"{}\" (known here: {})",
                                              shortened(key.scalar), fmt::join(seen.known, ", "))
                                : fmt::format("unknown key \"{}\"; did you mean \"{}\"?",
                                              shortened(key.scalar), near)});
        }
    }
    std::stable_sort(all.begin(), all.end(), [](const Log::Problem& a, const Log::Problem& b) {
        return std::tie(a.where.file, a.where.line, a.where.column) <
               std::tie(b.where.file, b.where.line, b.where.column);
    });
    std::vector<std::string> lines;
    for (const Log::Problem& one : all) {
        std::string line = fmt::format("{}: {}", to_string(one.where), one.text);
        // A key that is read twice has one problem.
        if (std::find(lines.begin(), lines.end(), line) == lines.end())
            lines.push_back(std::move(line));
    }
    return lines;
}

void Reader::finish() {
    const std::vector<std::string> lines = problems();
    if (!lines.empty()) throw InputError(fmt::format("{}", fmt::join(lines, "\n")));
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
    // Optimal string alignment: insert, delete, replace, swap neighbours. A third of the word may
    // be wrong, three letters at most; long words are nobody's slip.
    constexpr std::size_t longest = 64;
    if (word.size() > longest) return "";
    std::size_t best = std::min<std::size_t>(3, std::max<std::size_t>(1, word.size() / 3)) + 1;
    std::string found;
    for (const std::string& candidate : candidates) {
        if (candidate.size() > longest) continue;
        const std::size_t n = candidate.size();
        std::vector<std::size_t> before(n + 1);
        std::vector<std::size_t> last(n + 1);
        std::vector<std::size_t> row(n + 1);
        for (std::size_t j = 0; j <= n; ++j) last[j] = j;
        for (std::size_t i = 1; i <= word.size(); ++i) {
            row[0] = i;
            for (std::size_t j = 1; j <= n; ++j) {
                const bool same = word[i - 1] == candidate[j - 1];
                row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (same ? 0 : 1)});
                if (i > 1 && j > 1 && word[i - 1] == candidate[j - 2] &&
                    word[i - 2] == candidate[j - 1])
                    row[j] = std::min(row[j], before[j - 2] + 1);
            }
            before.swap(last);
            last.swap(row);
        }
        if (last[n] < best) {
            best = last[n];
            found = candidate;
        }
    }
    return found;
}

}  // namespace gallop
