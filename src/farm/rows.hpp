#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/node.hpp"
#include "farm/problems.hpp"

namespace gallop {

/// Which column of a file gives which field; empty: columns have the fields' own names.
using Columns = std::vector<std::pair<std::string, std::string>>;  // field, column

/// Streams the rows of a .jsonl or .csv file as maps of item fields, one at a time.
///
/// JSONL: one object a line; null is as if it were not there; `a.b` finds a column inside another.
/// CSV as in RFC 4180 with a header; an empty cell is as if it were not there.
class RowReader {
public:
    static constexpr std::size_t longest_row = 1U << 20;

    /// `columns` must outlive the reader. Throws InputError when the file cannot be opened or is
    /// of another kind.
    RowReader(std::filesystem::path path, const Columns& columns);

    /// Reads the next row; rows that are wrong are noted and passed over. False at the end.
    bool next(Node& row, Problems& problems);
    /// Line on which the last row begins.
    int line() const { return line_; }
    /// Notes a mistake for each column that was asked for and that no row had.
    void finish(Problems& problems) const;

private:
    bool read_line();
    bool next_json(Node& row, Problems& problems);
    bool next_record(std::vector<Node>& cells, Problems& problems);
    void read_header(Problems& problems);
    Node map_row(Node&& from, Problems& problems);
    Where where() const { return {path_.string(), line_, 1}; }

    std::filesystem::path path_;
    const Columns& columns_;
    std::ifstream file_;
    std::string text_;  ///< the line read last
    int next_line_ = 1;
    int line_ = 0;
    bool csv_ = false;
    bool header_read_ = false;
    std::vector<std::string> header_;
    std::set<std::string> seen_;      ///< columns asked for that a row had
    std::set<std::string> reported_;  ///< unknown columns
};

/// The files that a pattern with *, ? and [] names, sorted. `folder`: what it is relative to.
std::vector<std::filesystem::path> matching_files(const std::string& pattern,
                                                  const std::filesystem::path& folder);

}  // namespace gallop
