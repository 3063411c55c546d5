#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/node.hpp"
#include "farm/fields.hpp"
#include "farm/problems.hpp"

namespace gallop {

/// One field of a sweep at one of its values.
struct AxisValue {
    std::string axis;      ///< the field as the manifest names it: "guidance", "steps.base"
    nlohmann::json value;  ///< as written
    Layer layer;           ///< what it sets
};

/// What one item is rendered with, of the sweep's values.
using Cell = std::vector<const AxisValue*>;

/// "guidance=3-steps.base=8", fit for a name.
std::string label_of(const Cell& cell);
/// {"guidance": 3, "steps.base": 8}; null for no cell.
nlohmann::json json_of(const Cell& cell);

/// The `sweep` of a manifest: matrix × zips − exclude + include.
class Sweep {
public:
    static constexpr std::size_t most_cells = 100'000;

    Sweep() = default;
    Sweep(Sweep&&) = default;
    Sweep& operator=(Sweep&&) = default;
    Sweep(const Sweep&) = delete;  // cells hold addresses of axis values
    Sweep& operator=(const Sweep&) = delete;
    ~Sweep() = default;
    /// Reads a `sweep` map. Files are taken from `folder`.
    Sweep(const Node& map, const std::filesystem::path& folder, Problems& problems);

    /// The cells of an item that sets these fields itself: the axes that it pins collapse, and cells
    /// that become the same are one. Without a sweep there is one empty cell. Empty when `exclude`
    /// leaves nothing. The addresses stay good as long as this object.
    std::vector<Cell> cells(const ItemFields& item) const;
    /// Axis → its values, in order, for run.json.
    const std::vector<std::pair<std::string, std::vector<nlohmann::json>>>& axes() const {
        return axes_;
    }
    bool empty() const { return grid_.empty() && include_.empty(); }
    std::size_t size() const { return grid_.size() + include_.size(); }

private:
    using Zip = std::vector<std::vector<AxisValue>>;  // fields × values
    struct Pattern {
        Layer layer;
        std::vector<std::string> axes;
    };
    bool read_field(const Node& key, const Node& value, std::vector<AxisValue>& values,
                    Problems& problems, const std::filesystem::path& folder);
    void read_map(const Node& map, const char* what, const std::filesystem::path& folder,
                  Problems& problems, Zip& fields, const std::string& prefix = "");
    void read_zip(const Node& map, const std::filesystem::path& folder, Problems& problems);
    void read_cells(const Node& list, const char* what, const std::filesystem::path& folder,
                    Problems& problems, std::vector<std::vector<AxisValue>>& cells);
    void multiply(Problems& problems, const Where& where);
    bool excluded(const Cell& cell, const ItemFields& item) const;
    std::vector<Cell> distinct_cells(const ItemFields& item) const;
    void note_axis(const AxisValue& value);

    std::vector<Zip> factors_;  ///< each a lock-step group; a matrix axis is a group of one field
    std::vector<Cell> grid_;
    std::vector<Cell> whole_;  ///< the cells of an item that pins nothing
    std::vector<std::vector<AxisValue>> include_;
    std::vector<Pattern> exclude_;
    std::vector<std::pair<std::string, std::vector<nlohmann::json>>> axes_;
};

}  // namespace gallop
