#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.hpp"
#include "ops/backend.hpp"

namespace gallop {

/// One tensor as a file holds it.
struct StoredTensor {
    std::string name;
    DType dtype = DType::f32;
    Shape shape;
    std::size_t file = 0;      ///< index into Checkpoint::files()
    std::uint64_t offset = 0;  ///< of its first byte in that file (before decompression for .zst)
    std::uint64_t bytes = 0;
};

/// One row of a network's table: a tensor it needs.
struct TensorSpec {
    std::string name;             ///< without the checkpoint's prefix
    Shape shape;
    DType dtype = DType::f32;     ///< in which it is kept on the backend
    bool optional = false;        ///< may be absent
    bool any_rows = false;        ///< the first extent may be larger (embedding tables)
    bool conv = false;            ///< goes through Backend::prepare_conv
};

/// A network's tensors on a backend, by name.
class Weights {
public:
    /// Throws Error when there is none of that name.
    const Tensor& operator[](std::string_view name) const;
    bool has(std::string_view name) const;
    void put(std::string name, Tensor tensor);
    /// Bytes of all tensors.
    std::size_t bytes() const;

private:
    std::map<std::string, Tensor, std::less<>> tensors_;
};

/// What of a checkpoint is read.
struct LoadOptions {
    std::string prefix;      ///< only stored names that start with it count; it is cut off
    bool strict = true;      ///< surplus names (within the prefix) are errors
};

/// A set of weight files, opened: headers read and validated, no tensor read yet.
///
/// Understands: a folder with `model.safetensors.index.json` (sharded; `SHARD.zst` wins over `SHARD`)
/// or `model.safetensors[.zst]`; a single `.safetensors[.zst]`; a torch zip `.pth`, `.pt`, `.ckpt`
/// (a flat map name → tensor, or such a map under `ema_state_dict`, `state_dict` or `model`, with a
/// leading `module.` cut off). E4M3 tensors are multiplied by their `NAME.__fp8_scale`, which is not
/// listed as a tensor of its own.
class Checkpoint {
public:
    /// Throws InputError for anything malformed: truncated, overlapping, out of bounds, overflowing
    /// shapes, duplicate names, unknown dtypes, a pickle that does more than build tensors.
    static Checkpoint open(const std::filesystem::path& path);
    Checkpoint(Checkpoint&&) noexcept;
    Checkpoint& operator=(Checkpoint&&) noexcept;
    ~Checkpoint();

    /// All tensors, sorted by name.
    const std::vector<StoredTensor>& tensors() const;
    /// The tensor of that full name, or nullptr.
    const StoredTensor* find(std::string_view name) const;
    const std::vector<std::filesystem::path>& files() const;
    /// `__metadata__` of a single safetensors file.
    const std::map<std::string, std::string>& metadata() const;

    /// Reads the tensors of `specs`, converting while streaming: beside the result at most one bounded
    /// staging buffer is alive. Throws InputError that lists every missing, surplus and misshapen
    /// tensor at once.
    Weights load(std::span<const TensorSpec> specs, Backend& on, const LoadOptions& options = {}) const;
    /// Reads one tensor as stored, on the host. Throws InputError when there is none of that name.
    Tensor read(std::string_view name) const;
    /// Reads one floating tensor as f32, on the host.
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

/// Writes one safetensors file (atomically, tensors 8-byte aligned, in the given order).
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace gallop
