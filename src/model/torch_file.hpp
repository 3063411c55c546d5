#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/byte_source.hpp"
#include "model/checkpoint.hpp"

namespace gallop {

/// The tensors of a zip archive made by torch.save, in the pickle's order; `file` of each is 0.
/// Throws InputError that starts with `file`; see read_zip_directory and read_torch_pickle.
std::vector<StoredTensor> read_torch_file(ByteSource& source, const std::string& file);

/// Writes what torch.save makes of a map name → f32 tensor, piece by piece.
class TorchWriter {
public:
    struct Row {
        std::string name;
        Shape shape;
    };

    /// Writes up to the first tensor's bytes. `under`: the key under which the map is nested;
    /// empty: the map itself is saved. Throws Error.
    TorchWriter(const std::filesystem::path& path, std::span<const Row> table,
                const std::string& under = {});
    ~TorchWriter();
    TorchWriter(const TorchWriter&) = delete;
    TorchWriter& operator=(const TorchWriter&) = delete;

    /// The whole next tensor of the table. Throws Error.
    void append(ConstTensorView tensor);
    /// Gives the file its name. Throws Error, also when tensors are missing.
    void commit();

private:
    struct Output;
    std::unique_ptr<Output> output_;
};

}  // namespace gallop
