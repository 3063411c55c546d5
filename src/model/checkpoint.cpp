#include "model/checkpoint.hpp"

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "core/check.hpp"
#include "core/files.hpp"
#include "model/byte_source.hpp"
#include "model/fp8.hpp"
#include "model/presence.hpp"
#include "model/safetensors.hpp"
#include "model/tensor_stream.hpp"
#include "model/torch_file.hpp"
#include "model/weight_loader.hpp"

namespace gallop {
namespace {

constexpr std::uint64_t max_index = 64U << 20;

// PATH.zst when it is there, else PATH.
std::filesystem::path packed_or_plain(const std::filesystem::path& path) {
    std::filesystem::path packed = path;
    packed += ".zst";
    return there(packed) ? packed : path;
}

bool is_torch(const std::filesystem::path& path) {
    if (path.extension() == ".safetensors" || path.extension() == ".zst") return false;
    const InputFile file(path);
    std::array<unsigned char, 4> magic{};
    if (file.size() < magic.size()) return false;
    file.read(0, std::as_writable_bytes(std::span(magic)));
    if (magic[0] == 0x80 && magic[1] == 2)
        throw_input_error(
            "{}: torch's old format without a zip archive (save it again with torch 1.6 or "
            "later)",
            path.string());
    return magic == std::array<unsigned char, 4>{'P', 'K', 3, 4};
}

}  // namespace

struct Checkpoint::Data {
    std::filesystem::path path;  // as given to open
    std::vector<std::filesystem::path> files;
    std::vector<StoredTensor> tensors;
    std::map<std::string, StoredTensor, std::less<>>
        scales;  // by the name of the tensor they scale
    std::map<std::string, std::string> metadata;
    std::map<std::string, std::string, std::less<>> absent;  // tensor → shard that is not there

    void add_safetensors(const std::filesystem::path& file);
    void add_sharded(const std::filesystem::path& index);
    void add_torch(const std::filesystem::path& file);
    void sort();

    const StoredTensor* find(std::string_view name) const;
    const StoredTensor& at(std::string_view name) const;
    // Behind a tensor that is not there: the shard in which it should be, where the index knows.
    std::string whereabouts(std::string_view name) const;
    TensorStream stream(ByteSource& source, const StoredTensor& tensor) const;
    // Each tensor that a network needs with the one that it is made of. Throws InputError, see require.
    std::vector<LoadJob> match(std::span<const TensorSpec> specs, const LoadOptions& options) const;
};

void Checkpoint::Data::add_safetensors(const std::filesystem::path& file) {
    const auto source = open_source(file);
    SafetensorsHeader header = read_safetensors_header(*source, file.string());
    for (StoredTensor& tensor : header.tensors) {
        tensor.file = files.size();
        tensors.push_back(std::move(tensor));
    }
    metadata = std::move(header.metadata);
    files.push_back(file);
}

void Checkpoint::Data::add_sharded(const std::filesystem::path& index) {
    const auto shard_of = parse_safetensors_index(read_text(index, max_index), index.string());
    std::map<std::string, std::size_t> shards;
    for (const auto& [tensor, shard] : shard_of) shards.emplace(shard, 0);
    std::vector<std::string> missing;
    for (auto& [shard, number] : shards) {
        number = files.size();
        const std::filesystem::path file = packed_or_plain(index.parent_path() / shard);
        if (there(file))
            add_safetensors(file);
        else
            missing.push_back(shard);
    }
    // A network may need a few of the shards only: of the text encoder's nine the first four.
    if (files.empty())
        throw_input_error("{}: none of its shards is there:\n  {}", index.string(),
                          fmt::join(missing, "\n  "));
    for (const auto& [tensor, shard] : shard_of)
        if (std::find(missing.begin(), missing.end(), shard) != missing.end())
            absent.emplace(tensor, shard);
    metadata.clear();

    std::map<std::string_view, std::size_t> held;
    for (const StoredTensor& tensor : tensors) held.emplace(tensor.name, tensor.file);
    std::string misplaced;
    for (const auto& [tensor, shard] : shard_of) {
        if (absent.contains(tensor)) continue;
        const auto found = held.find(tensor);
        if (found == held.end() || found->second != shards.at(shard))
            misplaced += fmt::format("\n  {} in {}", tensor, shard);
    }
    if (!misplaced.empty())
        throw_input_error("{}: tensors that are not where it says:{}", index.string(), misplaced);
}

void Checkpoint::Data::add_torch(const std::filesystem::path& file) {
    const auto source = open_source(file);
    for (StoredTensor& tensor : read_torch_file(*source, file.string())) {
        tensor.file = files.size();
        tensors.push_back(std::move(tensor));
    }
    files.push_back(file);
}

void Checkpoint::Data::sort() {
    std::sort(tensors.begin(), tensors.end(),
              [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
    for (std::size_t i = 1; i < tensors.size(); ++i)
        if (tensors[i].name == tensors[i - 1].name)
            throw_input_error("{}: '{}' is in {} and in {}", path.string(), tensors[i].name,
                              files[tensors[i - 1].file].string(), files[tensors[i].file].string());
    // Scales leave the list; each must fit its tensor.
    const auto scaled = [&](const StoredTensor& tensor) -> const StoredTensor* {
        if (!tensor.name.ends_with(fp8_scale_suffix)) return nullptr;
        const StoredTensor* found = find(
            std::string_view(tensor.name).substr(0, tensor.name.size() - fp8_scale_suffix.size()));
        return found != nullptr && found->type == StoredType::f8_e4m3 ? found : nullptr;
    };
    for (const StoredTensor& scale : tensors) {
        const StoredTensor* tensor = scaled(scale);
        if (tensor == nullptr) continue;
        const Index values = scale.shape.numel();
        const bool by_row = tensor->shape.rank() > 0 && values == tensor->shape[0];
        if ((values != 1 && !by_row) || !is_weight_type(scale.type))
            throw_input_error("{}: {}: {} {} (one value, or one a row of {})", path.string(),
                              scale.name, name_of(scale.type), to_string(scale.shape),
                              to_string(tensor->shape));
        scales.emplace(tensor->name, scale);
    }
    std::erase_if(tensors, [&](const StoredTensor& tensor) {
        return tensor.name.ends_with(fp8_scale_suffix) &&
               scales.contains(std::string_view(tensor.name)
                                   .substr(0, tensor.name.size() - fp8_scale_suffix.size()));
    });
    // Without its scale a tensor would be read as something else.
    std::erase_if(tensors, [&](const StoredTensor& tensor) {
        const auto scale = absent.find(tensor.name + std::string(fp8_scale_suffix));
        if (tensor.type != StoredType::f8_e4m3 || scale == absent.end()) return false;
        absent.emplace(tensor.name, scale->second);
        return true;
    });
}

const StoredTensor* Checkpoint::Data::find(std::string_view name) const {
    const auto found = std::lower_bound(
        tensors.begin(), tensors.end(), name,
        [](const StoredTensor& tensor, std::string_view wanted) { return tensor.name < wanted; });
    return found != tensors.end() && found->name == name ? &*found : nullptr;
}

std::string Checkpoint::Data::whereabouts(std::string_view name) const {
    const auto found = absent.find(name);
    return found == absent.end() ? "" : fmt::format(" ({} is not there)", found->second);
}

const StoredTensor& Checkpoint::Data::at(std::string_view name) const {
    const StoredTensor* found = find(name);
    if (found == nullptr)
        throw_input_error("{}: no tensor '{}'{}", path.string(), name, whereabouts(name));
    return *found;
}

TensorStream Checkpoint::Data::stream(ByteSource& source, const StoredTensor& tensor) const {
    std::vector<float> scale;
    if (const auto found = scales.find(tensor.name); found != scales.end()) {
        // Through a source of its own, so that a compressed file is still read from front to back.
        const auto beside = open_source(files[found->second.file]);
        scale.resize(static_cast<std::size_t>(found->second.shape.numel()));
        TensorStream(*beside, found->second)
            .read({reinterpret_cast<std::byte*>(scale.data()),
                   Shape{static_cast<Index>(scale.size())}, DType::f32, Device::cpu});
    }
    return TensorStream(source, tensor, std::move(scale));
}

Checkpoint Checkpoint::open(const std::filesystem::path& path) {
    auto data = std::make_unique<Data>();
    data->path = path;
    std::error_code ignored;
    if (!std::filesystem::is_directory(path, ignored)) {
        if (!there(path)) throw_input_error("{}: no such file or folder", path.string());
        if (is_torch(path))
            data->add_torch(path);
        else
            data->add_safetensors(path);
    } else if (const auto index = path / "model.safetensors.index.json"; there(index)) {
        data->add_sharded(index);
    } else if (const auto file = packed_or_plain(path / "model.safetensors"); there(file)) {
        data->add_safetensors(file);
    } else {
        throw_input_error("{}: neither model.safetensors.index.json nor model.safetensors in it",
                          path.string());
    }
    data->sort();
    return Checkpoint(std::move(data));
}

Checkpoint::Checkpoint(std::unique_ptr<Data> data) : data_(std::move(data)) {}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

const std::vector<StoredTensor>& Checkpoint::tensors() const { return data_->tensors; }
const StoredTensor* Checkpoint::find(std::string_view name) const { return data_->find(name); }
const std::vector<std::filesystem::path>& Checkpoint::files() const { return data_->files; }
const std::map<std::string, std::string>& Checkpoint::metadata() const { return data_->metadata; }
std::set<std::string> Checkpoint::absent_shards() const {
    std::set<std::string> shards;
    for (const auto& [tensor, shard] : data_->absent) shards.insert(shard);
    return shards;
}

namespace {

/// The extents that the file must hold.
const Shape& stored_shape(const TensorSpec& spec) {
    return spec.slice ? spec.slice->stored : spec.shape;
}

bool fits(const TensorSpec& spec, const Shape& stored) {
    if (spec.slice) return stored == spec.slice->stored;
    if (!spec.any_rows || spec.shape.rank() == 0) return stored == spec.shape;
    return stored.rank() == spec.shape.rank() && stored[0] >= spec.shape[0] &&
           std::equal(stored.begin() + 1, stored.end(), spec.shape.begin() + 1);
}

}  // namespace

std::vector<LoadJob> Checkpoint::Data::match(std::span<const TensorSpec> specs,
                                             const LoadOptions& options) const {
    std::vector<LoadJob> jobs;
    std::vector<std::string> problems;
    std::map<std::string_view, const TensorSpec*> wanted;
    for (const TensorSpec& spec : specs) {
        CHECK(wanted.emplace(spec.name, &spec).second, "the table names '{}' twice", spec.name);
        const StoredTensor* stored = find(options.prefix + spec.name);
        if (stored == nullptr) {
            // What may be left out was not left out when an index names it.
            if (!spec.optional || absent.contains(options.prefix + spec.name))
                problems.push_back(fmt::format("missing   {} {}{}", spec.name,
                                               to_string(stored_shape(spec)),
                                               whereabouts(options.prefix + spec.name)));
        } else if (!fits(spec, stored->shape)) {
            problems.push_back(fmt::format("misshapen {} {} ({}{} wanted)", spec.name,
                                           to_string(stored->shape), to_string(stored_shape(spec)),
                                           spec.any_rows ? " or more rows" : ""));
        } else if (!is_weight_type(stored->type)) {
            problems.push_back(fmt::format("mistyped  {} {} (a floating type wanted)", spec.name,
                                           name_of(stored->type)));
        } else {
            jobs.push_back({&spec, stored});
        }
    }
    if (options.strict)
        for (const StoredTensor& tensor : tensors)
            if (tensor.name.starts_with(options.prefix) &&
                !wanted.contains(std::string_view(tensor.name).substr(options.prefix.size())))
                problems.push_back(fmt::format("surplus   {} {}",
                                               tensor.name.substr(options.prefix.size()),
                                               to_string(tensor.shape)));
    if (!problems.empty())
        throw_input_error("{}: {} tensors do not fit the architecture{}:\n  {}", path.string(),
                          problems.size(),
                          options.prefix.empty() ? "" : " (under '" + options.prefix + "')",
                          fmt::join(problems, "\n  "));
    return jobs;
}

void Checkpoint::require(std::span<const TensorSpec> specs, const LoadOptions& options) const {
    data_->match(specs, options);
}

Weights Checkpoint::load(std::span<const TensorSpec> specs, Backend& on,
                         const LoadOptions& options) const {
    std::vector<LoadJob> jobs = data_->match(specs, options);
    // In the files' order: one pass from front to back.
    std::sort(jobs.begin(), jobs.end(), [](const LoadJob& a, const LoadJob& b) {
        return std::tie(a.stored->file, a.stored->offset) <
               std::tie(b.stored->file, b.stored->offset);
    });
    return load_weights(
        jobs, files(),
        [&](ByteSource& source, const StoredTensor& stored) {
            return data_->stream(source, stored);
        },
        on);
}

Tensor Checkpoint::read(std::string_view name) const {
    const StoredTensor& stored = data_->at(name);
    const auto dtype = dtype_of(stored.type);
    if (!dtype)
        throw_input_error("{}: {} is {} (not a type the engine computes with)",
                          data_->path.string(), name, name_of(stored.type));
    const auto source = open_source(files()[stored.file]);
    Tensor tensor(stored.shape, *dtype);
    source->read(stored.offset, {tensor.view().raw(), tensor.bytes()});
    return tensor;
}

Tensor Checkpoint::read_f32(std::string_view name) const {
    const StoredTensor& stored = data_->at(name);
    if (!is_weight_type(stored.type))
        throw_input_error("{}: {} is {} (a floating type wanted)", data_->path.string(), name,
                          name_of(stored.type));
    const auto source = open_source(files()[stored.file]);
    Tensor tensor(stored.shape);
    data_->stream(*source, stored).read(tensor);
    return tensor;
}

}  // namespace gallop
