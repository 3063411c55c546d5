#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/node.hpp"

namespace gallop {

/// Inclusive bounds of a number.
template <class T>
struct Range {
    T least;
    T most;
};
template <class T>
Range(T, T) -> Range<T>;

/// Reads a map into plain values. It notes each key asked for and each problem met; `finish`,
/// called once on the root reader, throws them all together as one InputError, one problem a line:
/// `file:line:column: what is wrong, with the value (what is needed); hint`. Unknown keys are
/// problems, with the nearest known name as the hint. Every getter returns its fallback after a
/// problem, so that reading goes on.
///
/// Values are strict: a number is plain decimal without leading zeros, a flag is `true` or `false`,
/// text in quotes is text only. A key that stands there without a value is a problem (a map or list
/// may be empty).
class Reader {
public:
    /// `root` must outlive the reader. A root that is not a map (or null, read as an empty map) is
    /// a problem.
    explicit Reader(const Node& root);
    Reader(Reader&&) noexcept;
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;
    Reader& operator=(Reader&&) = delete;
    ~Reader();

    /// Whether the key is there (noted as known).
    bool has(std::string_view key);
    /// The raw value, noted as known; nullptr when absent.
    const Node* node(std::string_view key);

    // Optional keys: the fallback when absent.
    bool get(std::string_view key, bool fallback);
    std::int64_t get(std::string_view key, std::int64_t fallback, Range<std::int64_t> range);
    int get(std::string_view key, int fallback, Range<int> range);
    double get(std::string_view key, double fallback, Range<double> range);
    std::string get(std::string_view key, const std::string& fallback);
    std::string get(std::string_view key, const char* fallback);  // else a literal would be a bool
    /// One of `allowed`; the nearest is named when it is none of them.
    std::string choice(std::string_view key, const std::string& fallback,
                       const std::vector<std::string>& allowed);
    std::vector<std::int64_t> get_list(std::string_view key, std::vector<std::int64_t> fallback,
                                       Range<std::int64_t> range);
    std::vector<double> get_list(std::string_view key, std::vector<double> fallback,
                                 Range<double> range);
    std::vector<bool> get_list(std::string_view key, std::vector<bool> fallback);
    std::vector<std::string> get_list(std::string_view key, std::vector<std::string> fallback);

    /// A required key: its absence is a problem. Then the getters above apply.
    void require(std::string_view key);

    /// A reader of the map under `key` (empty when absent); its problems are the root's.
    Reader child(std::string_view key);
    /// Readers of the maps of the sequence under `key` (none when absent).
    std::vector<Reader> children(std::string_view key);

    /// Notes a problem at the value of `key` (at the map itself when it is absent or empty).
    void problem(std::string_view key, std::string text);
    /// Notes a problem at a place.
    void problem(const Where& where, std::string text);
    /// Where the value of `key` stands (the map itself when it is absent or empty).
    Where where(std::string_view key) const;
    /// Keys not asked for are not problems in this map.
    void ignore_unknown();

    /// Throws all problems noted by this reader and its children; root only.
    void finish();
    /// All problems as lines, unknown keys included; for callers that collect over several files.
    std::vector<std::string> problems();

private:
    struct Log;
    struct Seen;
    Reader(const Node* map, std::shared_ptr<Log> log);
    template <class T, class Parse>
    T read(std::string_view key, T fallback, const std::string& needed, Parse&& parse);
    template <class T, class Parse>
    std::vector<T> read_list(std::string_view key, std::vector<T> fallback,
                             const std::string& needed, Parse&& parse);

    const Node* map_;
    std::shared_ptr<Log> log_;
    Seen* seen_;
};

/// The candidate with the smallest edit distance to `word`, or "" when none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace gallop
