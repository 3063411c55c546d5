#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/byte_source.hpp"
#include "model/checkpoint.hpp"
#include "model/file_writer.hpp"

namespace gallop {

/// The format's own bound of a header.
inline constexpr std::uint64_t max_safetensors_header = 100'000'000;

/// What the header of a safetensors file says.
struct SafetensorsHeader {
    std::vector<StoredTensor> tensors;            ///< sorted by offset, then name; `file` is 0
    std::map<std::string, std::string> metadata;  ///< `__metadata__`
};

/// Reads the header: 8 bytes length, JSON, then the tensors' bytes without gap or overlap up to the
/// end. Throws InputError that starts with `file` for anything else.
SafetensorsHeader read_safetensors_header(ByteSource& source, const std::string& file);

/// The same from the JSON text alone; the data begin at `data_begin` and end at `data_end` (when
/// known, else no later than that).
SafetensorsHeader parse_safetensors_header(std::string_view json, const std::string& file,
                                           std::uint64_t data_begin, std::uint64_t data_end,
                                           bool end_known);

/// tensor → shard file of a `model.safetensors.index.json`. Throws InputError that starts with
/// `file` when the text is malformed, names a tensor twice, or names a shard that is not a plain
/// file name.
std::map<std::string, std::string> parse_safetensors_index(std::string_view json,
                                                           const std::string& file);

/// The shape of stored extents. Throws InputError "FILE: TENSOR: …" when there are more than eight
/// or their bytes overflow.
Shape stored_shape(const std::string& file, const std::string& tensor,
                   std::span<const std::uint64_t> extents, StoredType type);

/// Writes a safetensors file piece by piece, so that a file larger than memory can be made.
class SafetensorsWriter {
public:
    struct Row {
        std::string name;
        DType dtype;
        Shape shape;
    };

    /// Writes the header. Throws Error.
    SafetensorsWriter(const std::filesystem::path& path, std::span<const Row> table,
                      const std::map<std::string, std::string>& metadata = {});

    /// The next bytes of the tensors in the order of the table. Throws Error.
    void append(std::span<const std::byte> bytes);
    /// Gives the file its name. Throws Error, also when bytes are missing.
    void commit();

private:
    FileWriter file_;
    std::uint64_t missing_ = 0;  // bytes announced but not appended yet
};

}  // namespace gallop
