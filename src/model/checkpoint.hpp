#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.hpp"
#include "ops/backend.hpp"

namespace gallop {

/// What a file may hold. The engine reads f32, f16, bf16, f8_e4m3 and f64 as weights and i32, i64
/// and u8 as they are; the others can only be listed.
enum class StoredType : std::uint8_t {
    f64,
    f32,
    f16,
    bf16,
    f8_e4m3,
    f8_e5m2,
    i64,
    i32,
    i16,
    i8,
    u64,
    u32,
    u16,
    u8,
    boolean,
};

/// As safetensors spells it: "F32", "BF16", "F8_E4M3", "BOOL", …
std::string_view name_of(StoredType type);
/// Bytes of one element.
std::size_t size_of(StoredType type);
/// The engine's dtype of the same bits; none for those it has no dtype for.
std::optional<DType> dtype_of(StoredType type);

/// One tensor as a file holds it.
struct StoredTensor {
    std::string name;
    StoredType type = StoredType::f32;
    Shape shape;
    std::size_t file = 0;  ///< index into Checkpoint::files()
    std::uint64_t offset =
        0;  ///< of its first byte in that file; for .zst, in what it decompresses to
    std::uint64_t bytes = 0;
};

/// The part of a stored matrix that is kept; what no part of it fills is zero.
struct Slice {
    struct Rows {
        Index from;   ///< first row in the file
        Index count;  ///< rows
        Index to;     ///< first row as kept
    };
    Shape stored;            ///< of the whole, [N, D]
    std::vector<Rows> rows;  ///< in the file's order
    Index column = 0;        ///< first column kept; they are kept from the first on
    Index columns = -1;      ///< how many; −1: all
};

/// One row of a network's table: a tensor it needs.
struct TensorSpec {
    std::string name;  ///< without the checkpoint's prefix
    Shape shape;
    DType dtype = DType::f32;  ///< in which it is kept on the backend; f8_e4m3: a matrix, quantised
                               ///< row by row, its scales beside it under NAME.__fp8_scale
    bool optional = false;     ///< may be absent
    bool any_rows =
        false;          ///< the first extent may be larger (embedding tables); all rows are kept
    bool conv = false;  ///< goes through Backend::prepare_conv
    std::optional<Slice> slice = {};  ///< kept in part: `shape` is then what is kept
};

/// A network's tensors on a backend, by name.
class Weights {
public:
    /// Throws Error when there is none of that name.
    const Tensor& operator[](std::string_view name) const;
    bool has(std::string_view name) const;
    void put(std::string name, Tensor tensor);
    /// Gives a tensor away; there is none of that name then. Throws Error when there was none.
    Tensor take(std::string_view name);
    /// Bytes of all tensors.
    std::size_t bytes() const;

private:
    std::map<std::string, Tensor, std::less<>> tensors_;
};

/// What of a checkpoint is read.
struct LoadOptions {
    std::string prefix = {};  ///< only stored names that start with it count; it is cut off
    bool strict = true;       ///< surplus names (within the prefix) are errors
};

/// A set of weight files, opened: headers read and validated, no tensor read yet.
///
/// Understands: a folder with `model.safetensors.index.json` (sharded; `SHARD.zst` wins over
/// `SHARD`; shards that no tensor is read from may be missing) or `model.safetensors[.zst]`; a single `.safetensors[.zst]`; a torch zip `.pth`, `.pt`,
/// `.ckpt` (a flat map name → tensor, or such a map under `ema_state_dict`, `state_dict` or
/// `model`, with a leading `module.` cut off). E4M3 tensors are multiplied by their
/// `NAME.__fp8_scale` (one value, or one a row), which is not listed as a tensor of its own.
class Checkpoint {
public:
    /// Throws InputError for anything malformed: truncated, overlapping, out of bounds, overflowing
    /// shapes, duplicate names, unknown dtypes, a pickle that does more than build tensors. What a
    /// .zst holds behind its header is seen only when tensors are read.
    static Checkpoint open(const std::filesystem::path& path);
    Checkpoint(Checkpoint&&) noexcept;
    Checkpoint& operator=(Checkpoint&&) noexcept;
    ~Checkpoint();

    /// All tensors, sorted by name.
    const std::vector<StoredTensor>& tensors() const;
    /// The tensor of that full name, or nullptr.
    const StoredTensor* find(std::string_view name) const;
    const std::vector<std::filesystem::path>& files() const;
    /// Shards that the index names but the folder lacks; their tensors are not listed.
    std::set<std::string> absent_shards() const;
    /// `__metadata__` of a single safetensors file.
    const std::map<std::string, std::string>& metadata() const;

    /// Looks whether the tensors of `specs` are there and fit, by the headers alone. Throws InputError that lists
    /// every missing, surplus and misshapen tensor at once, a missing one with the shard that is not there.
    void require(std::span<const TensorSpec> specs, const LoadOptions& options = {}) const;
    /// Reads the tensors of `specs`, converting while streaming: beside the result a few bounded
    /// staging buffers are alive (see load_weights). Throws as `require`.
    Weights load(std::span<const TensorSpec> specs, Backend& on,
                 const LoadOptions& options = {}) const;
    /// Reads one tensor as stored (E4M3 without its scale), on the host. Throws InputError when
    /// there is none of that name or the engine has no dtype for it.
    Tensor read(std::string_view name) const;
    /// Reads one floating tensor as f32, scaled, on the host. Throws InputError.
    Tensor read_f32(std::string_view name) const;

private:
    struct Data;
    explicit Checkpoint(std::unique_ptr<Data> data);
    std::unique_ptr<Data> data_;
};

/// A named host tensor to be written.
struct NamedTensor {
    std::string name;
    ConstTensorView tensor;
};

/// Writes one safetensors file, atomically, tensors in the given order. Throws Error.
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace gallop
