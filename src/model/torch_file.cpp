#include "model/torch_file.hpp"

#include <algorithm>

#include "core/check.hpp"
#include "model/torch_pickle.hpp"
#include "model/zip.hpp"

namespace gallop {
namespace {

constexpr std::uint64_t max_pickle = 16U << 20;
constexpr std::string_view pickle_name = "data.pkl";

// torch.save's pickle: protocol 2, each tensor rebuilt from a persistent storage.
std::string make_pickle(std::span<const TorchWriter::Row> table, const std::string& under) {
    std::string out = "\x80\x02";
    const auto word = [&](std::uint32_t value) {
        out.append(reinterpret_cast<const char*>(&value), sizeof value);
    };
    const auto text = [&](const std::string& value) {
        out += 'X';
        word(static_cast<std::uint32_t>(value.size()));
        out += value;
    };
    const auto integer = [&](Index value) {
        out += "\x8a\x08";
        out.append(reinterpret_cast<const char*>(&value), sizeof value);
    };
    const auto tuple = [&](const auto& values) {
        out += '(';
        for (const Index value : values) integer(value);
        out += 't';
    };
    if (!under.empty()) {
        out += '}';
        text(under);
    }
    out += "}(";
    for (std::size_t i = 0; i < table.size(); ++i) {
        const Shape& shape = table[i].shape;
        std::vector<Index> strides(shape.rank(), 1);
        for (std::size_t axis = shape.rank(); axis-- > 1;)
            strides[axis - 1] = strides[axis] * std::max<Index>(shape[axis], 1);
        text(table[i].name);
        out += "ctorch._utils\n_rebuild_tensor_v2\n((";
        text("storage");
        out += "ctorch\nFloatStorage\n";
        text(std::to_string(i));
        text("cpu");
        integer(shape.numel());
        out += "tQ";
        integer(0);
        tuple(shape);
        tuple(strides);
        out +=
            "\x89"
            "ccollections\nOrderedDict\n)RtR";  // requires_grad, no hooks
    }
    out += under.empty() ? "u." : "us.";
    return out;
}

}  // namespace

std::vector<StoredTensor> read_torch_file(ByteSource& source, const std::string& file) {
    const std::vector<ZipEntry> entries = read_zip_directory(source, file);
    const ZipEntry* pickle = nullptr;
    for (const ZipEntry& entry : entries)
        if (entry.name.ends_with(fmt::format("/{}", pickle_name))) {
            if (pickle != nullptr)
                throw_input_error("{}: two pickles: {} and {}", file, pickle->name, entry.name);
            pickle = &entry;
        }
    if (pickle == nullptr) throw_input_error("{}: a zip archive without {}", file, pickle_name);
    if (pickle->bytes > max_pickle)
        throw_input_error("{}: a pickle of {} bytes (at most {})", file, pickle->bytes, max_pickle);
    const std::string folder = pickle->name.substr(0, pickle->name.size() - pickle_name.size());
    const auto member = [&](const std::string& wanted) -> const ZipEntry* {
        const auto found = std::lower_bound(
            entries.begin(), entries.end(), wanted,
            [](const ZipEntry& entry, const std::string& sought) { return entry.name < sought; });
        return found != entries.end() && found->name == wanted ? &*found : nullptr;
    };
    const auto text = [&](const ZipEntry& entry) {
        std::string read(static_cast<std::size_t>(entry.bytes), '\0');
        source.read(entry.offset, std::as_writable_bytes(std::span(read)));
        return read;
    };
    if (const ZipEntry* order = member(folder + "byteorder"))
        if (order->bytes > 16 || text(*order) != "little")
            throw_input_error("{}: not in little-endian byte order", file);

    std::vector<StoredTensor> tensors;
    for (PickledTensor& tensor : read_torch_pickle(text(*pickle), file)) {
        const ZipEntry* storage = member(folder + "data/" + tensor.storage);
        const std::uint64_t size = size_of(tensor.type);
        if (storage == nullptr)
            throw_input_error("{}: {}: no member '{}data/{}'", file, tensor.name, folder,
                              tensor.storage);
        if (storage->bytes / size != tensor.storage_count || storage->bytes % size != 0)
            throw_input_error("{}: {}: member '{}' has {} bytes ({} {} wanted)", file, tensor.name,
                              storage->name, storage->bytes, tensor.storage_count,
                              name_of(tensor.type));
        tensors.push_back({std::move(tensor.name), tensor.type, tensor.shape, 0,
                           storage->offset + tensor.first * size,
                           static_cast<std::uint64_t>(tensor.shape.numel()) * size});
    }
    return tensors;
}

struct TorchWriter::Output {
    Output(const std::filesystem::path& path, std::span<const Row> rows)
        : zip(path), table(rows.begin(), rows.end()) {}

    // torch names the archive's folder after the file.
    std::string folder = "archive/";
    ZipWriter zip;
    std::vector<Row> table;
    std::size_t next = 0;
};

TorchWriter::TorchWriter(const std::filesystem::path& path, std::span<const Row> table,
                         const std::string& under)
    : output_(std::make_unique<Output>(path, table)) {
    const auto add = [this](const std::string& name, std::string_view content) {
        output_->zip.add(output_->folder + name, std::as_bytes(std::span(content)));
    };
    add(std::string(pickle_name), make_pickle(table, under));
    add("byteorder", "little");
    add("version", "3\n");
}

TorchWriter::~TorchWriter() = default;

void TorchWriter::append(ConstTensorView tensor) {
    CHECK(output_->next < output_->table.size(), "more tensors than the table announced");
    const Row& row = output_->table[output_->next];
    CHECK(tensor.dtype() == DType::f32 && tensor.device() == Device::cpu &&
              tensor.shape() == row.shape,
          "{} {} for '{}' {}", name_of(tensor.dtype()), to_string(tensor.shape()), row.name,
          to_string(row.shape));
    output_->zip.add(fmt::format("{}data/{}", output_->folder, output_->next),
                     {tensor.raw(), tensor.bytes()});
    ++output_->next;
}

void TorchWriter::commit() {
    CHECK(output_->next == output_->table.size(), "'{}' is missing",
          output_->table[output_->next].name);
    output_->zip.commit();
}

}  // namespace gallop
