#include "model/safetensors.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <set>

#include <nlohmann/json.hpp>

#include "core/check.hpp"

namespace gallop {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors holds little-endian values");

constexpr std::array all_types{
    StoredType::f64,     StoredType::f32, StoredType::f16, StoredType::bf16, StoredType::f8_e4m3,
    StoredType::f8_e5m2, StoredType::i64, StoredType::i32, StoredType::i16,  StoredType::i8,
    StoredType::u64,     StoredType::u32, StoredType::u16, StoredType::u8,   StoredType::boolean};

// nlohmann's event interface: nothing is built but what we keep, names that occur twice are seen,
// and nesting costs no stack. Every event is an error unless a reader expects it.
class JsonEvents : public nlohmann::json_sax<nlohmann::json> {
public:
    explicit JsonEvents(const std::string& file) : file_(file) {}

    bool null() override { return unexpected("null"); }
    bool boolean(bool) override { return unexpected("a boolean"); }
    bool number_integer(number_integer_t value) override {
        return unexpected(fmt::format("the number {}", value));
    }
    bool number_unsigned(number_unsigned_t value) override {
        return unexpected(fmt::format("the number {}", value));
    }
    bool number_float(number_float_t, const string_t& text) override {
        return unexpected("the number " + text);
    }
    bool string(string_t& text) override { return unexpected("the string '" + text + "'"); }
    bool binary(binary_t&) override { return unexpected("binary data"); }
    bool start_object(std::size_t) override { return unexpected("an object"); }
    bool start_array(std::size_t) override { return unexpected("an array"); }
    bool end_array() override { return true; }
    bool parse_error(std::size_t position, const std::string& token,
                     const nlohmann::json::exception&) override {
        throw_input_error("{}: byte {} of the JSON text: unexpected '{}'", file_, position, token);
    }

protected:
    [[noreturn]] bool unexpected(const std::string& what) const {
        throw_input_error("{}: unexpected {} {}", file_, what,
                          key_.empty() ? "at the start" : "at '" + key_ + "'");
    }

    const std::string& file_;
    std::string key_;  // the last key read
};

class HeaderEvents final : public JsonEvents {
public:
    HeaderEvents(const std::string& file, std::uint64_t data_begin)
        : JsonEvents(file), begin_(data_begin) {}

    bool start_object(std::size_t) override {
        if (place_ == Place::outside) {
            place_ = Place::file;
        } else if (place_ == Place::file) {
            place_ = key_ == "__metadata__" ? Place::metadata : Place::tensor;
            name_ = key_;
            tensor_ = {};
        } else {
            unexpected("an object");
        }
        return true;
    }

    bool end_object() override {
        if (place_ == Place::tensor) finish_tensor();
        place_ = place_ == Place::file ? Place::outside : Place::file;
        return true;
    }

    bool key(string_t& text) override {
        key_ = text;
        return true;
    }

    bool string(string_t& text) override {
        if (place_ == Place::metadata) {
            if (!header_.metadata.emplace(key_, text).second)
                throw_input_error("{}: __metadata__ names '{}' twice", file_, key_);
        } else if (place_ == Place::tensor && key_ == "dtype" && !tensor_.has_type) {
            const auto* found =
                std::find_if(all_types.begin(), all_types.end(),
                             [&](StoredType type) { return name_of(type) == text; });
            if (found == all_types.end())
                throw_input_error("{}: {}: unknown dtype '{}'", file_, name_, text);
            tensor_.type = *found;
            tensor_.has_type = true;
        } else {
            unexpected("the string '" + text + "'");
        }
        return true;
    }

    bool start_array(std::size_t) override {
        if (place_ == Place::tensor && key_ == "shape" && !tensor_.has_shape) {
            place_ = Place::shape;
            tensor_.has_shape = true;
        } else if (place_ == Place::tensor && key_ == "data_offsets" && !tensor_.has_offsets) {
            place_ = Place::offsets;
            tensor_.has_offsets = true;
        } else {
            unexpected("an array");
        }
        return true;
    }

    bool end_array() override {
        place_ = Place::tensor;
        return true;
    }

    bool number_unsigned(number_unsigned_t value) override {
        if (place_ == Place::shape) {
            if (tensor_.extents.size() == Shape::max_rank)
                throw_input_error("{}: {}: more than {} extents", file_, name_, Shape::max_rank);
            tensor_.extents.push_back(value);
        } else if (place_ == Place::offsets && tensor_.offsets.size() < 2) {
            tensor_.offsets.push_back(value);
        } else {
            unexpected(fmt::format("the number {}", value));
        }
        return true;
    }

    SafetensorsHeader take() { return std::move(header_); }

private:
    enum class Place { outside, file, metadata, tensor, shape, offsets };
    struct Fields {
        StoredType type{};
        bool has_type = false;
        bool has_shape = false;
        bool has_offsets = false;
        std::vector<std::uint64_t> extents;
        std::vector<std::uint64_t> offsets;
    };

    void finish_tensor() {
        if (!tensor_.has_type || !tensor_.has_shape || tensor_.offsets.size() != 2)
            throw_input_error("{}: {}: needs dtype, shape and two data_offsets", file_, name_);
        StoredTensor made;
        made.name = name_;
        made.type = tensor_.type;
        made.shape = stored_shape(file_, name_, tensor_.extents, tensor_.type);
        made.bytes = static_cast<std::uint64_t>(made.shape.numel()) * size_of(made.type);
        const auto [first, last] = std::pair(tensor_.offsets[0], tensor_.offsets[1]);
        if (last < first || last - first != made.bytes)
            throw_input_error("{}: {}: data_offsets {} to {} do not hold {} {} ({} bytes)", file_,
                              name_, first, last, name_of(made.type), to_string(made.shape),
                              made.bytes);
        if (last > std::numeric_limits<std::int64_t>::max() - begin_)
            throw_input_error("{}: {}: data_offsets {} to {} are too large", file_, name_, first,
                              last);
        made.offset = begin_ + first;
        header_.tensors.push_back(std::move(made));
    }

    std::uint64_t begin_;
    SafetensorsHeader header_;
    Place place_ = Place::outside;
    std::string name_;
    Fields tensor_;
};

class IndexEvents final : public JsonEvents {
public:
    using JsonEvents::JsonEvents;

    // Only `weight_map` counts; `metadata` may hold anything.
    bool start_object(std::size_t) override {
        ++depth_;
        if (depth_ == 2 && key_ == "weight_map")
            inside_ = true;
        else if (inside_)
            unexpected("an object");
        return true;
    }
    bool end_object() override {
        --depth_;
        inside_ = false;
        return true;
    }
    bool key(string_t& text) override {
        key_ = text;
        return true;
    }
    bool string(string_t& text) override {
        if (!inside_) return true;
        const std::filesystem::path shard(text);
        if (text.empty() || text.find('\0') != std::string::npos || shard != shard.filename() ||
            text == "." || text == "..")
            throw_input_error("{}: a shard that is not a plain file name: '{}' of '{}'", file_,
                              text, key_);
        if (!map_.emplace(key_, text).second)
            throw_input_error("{}: names '{}' twice", file_, key_);
        return true;
    }
    bool null() override { return outside("null"); }
    bool boolean(bool) override { return outside("a boolean"); }
    bool number_integer(number_integer_t) override { return outside("a number"); }
    bool number_unsigned(number_unsigned_t) override { return outside("a number"); }
    bool number_float(number_float_t, const string_t&) override { return outside("a number"); }
    bool start_array(std::size_t) override { return outside("an array"); }

    std::map<std::string, std::string> take() { return std::move(map_); }

private:
    bool outside(const char* what) const {
        if (inside_ || depth_ == 0) unexpected(what);
        return true;
    }

    int depth_ = 0;
    bool inside_ = false;
    std::map<std::string, std::string> map_;
};

void check_layout(SafetensorsHeader& header, const std::string& file, std::uint64_t data_begin,
                  std::uint64_t data_end, bool end_known) {
    auto& tensors = header.tensors;
    std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
        return std::tie(a.offset, a.bytes, a.name) < std::tie(b.offset, b.bytes, b.name);
    });
    std::uint64_t expected = data_begin;
    for (const StoredTensor& tensor : tensors) {
        if (tensor.offset != expected)
            throw_input_error("{}: {}: its bytes begin at {} (the tensor before ends at {}: {})",
                              file, tensor.name, tensor.offset, expected,
                              tensor.offset < expected ? "they overlap" : "there is a gap");
        expected = tensor.offset + tensor.bytes;
        if (expected > data_end)
            throw_input_error("{}: truncated: {} bytes ({} ends at byte {})", file, data_end,
                              tensor.name, expected);
    }
    if (end_known && expected != data_end)
        throw_input_error("{}: {} bytes behind the last tensor", file, data_end - expected);
    std::set<std::string_view> names;
    for (const StoredTensor& tensor : tensors)
        if (!names.insert(tensor.name).second)
            throw_input_error("{}: names '{}' twice", file, tensor.name);
}

}  // namespace

Shape stored_shape(const std::string& file, const std::string& tensor,
                   std::span<const std::uint64_t> extents, StoredType type) {
    if (extents.size() > Shape::max_rank)
        throw_input_error("{}: {}: {} extents (at most {})", file, tensor, extents.size(),
                          Shape::max_rank);
    // The same bound as Shape's, with room for bytes; zeros do not hide an overflow.
    std::uint64_t product = size_of(type);
    std::array<Index, Shape::max_rank> checked{};
    for (std::size_t axis = 0; axis < extents.size(); ++axis) {
        const std::uint64_t extent = std::max<std::uint64_t>(extents[axis], 1);
        if (extent > static_cast<std::uint64_t>(std::numeric_limits<Index>::max()) / 8 / product)
            throw_input_error("{}: {}: too many elements: extent {} of [{}]", file, tensor,
                              extents[axis], fmt::join(extents, ", "));
        product *= extent;
        checked[axis] = static_cast<Index>(extents[axis]);
    }
    return Shape(std::span<const Index>(checked.data(), extents.size()));
}

SafetensorsHeader parse_safetensors_header(std::string_view json, const std::string& file,
                                           std::uint64_t data_begin, std::uint64_t data_end,
                                           bool end_known) {
    HeaderEvents events(file, data_begin);
    nlohmann::json::sax_parse(json, &events);
    SafetensorsHeader header = events.take();
    check_layout(header, file, data_begin, data_end, end_known);
    return header;
}

SafetensorsHeader read_safetensors_header(ByteSource& source, const std::string& file) {
    std::uint64_t length = 0;
    source.read(0, std::as_writable_bytes(std::span(&length, 1)));
    if (length > max_safetensors_header)
        throw_input_error("{}: a header of {} bytes (at most {}); is it a safetensors file?", file,
                          length, max_safetensors_header);
    if (length > source.size_bound() - std::min<std::uint64_t>(source.size_bound(), 8))
        throw_input_error("{}: a header of {} bytes in a file of {}", file, length,
                          source.size_bound());
    std::string json(static_cast<std::size_t>(length), '\0');
    source.read(8, std::as_writable_bytes(std::span(json)));
    return parse_safetensors_header(json, file, 8 + length, source.size_bound(),
                                    source.size_known());
}

std::map<std::string, std::string> parse_safetensors_index(std::string_view json,
                                                           const std::string& file) {
    IndexEvents events(file);
    nlohmann::json::sax_parse(json, &events);
    auto map = events.take();
    if (map.empty()) throw_input_error("{}: no 'weight_map'", file);
    return map;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::span<const Row> table,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path) {
    nlohmann::ordered_json header = nlohmann::ordered_json::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    for (const Row& row : table) {
        const std::uint64_t bytes =
            static_cast<std::uint64_t>(row.shape.numel()) * size_of(row.dtype);
        constexpr auto type_of = [](DType dtype) {
            return *std::find_if(all_types.begin(), all_types.end(),
                                 [dtype](StoredType type) { return dtype_of(type) == dtype; });
        };
        CHECK(!header.contains(row.name), "two tensors are named '{}'", row.name);
        header[row.name] = {{"dtype", std::string(name_of(type_of(row.dtype)))},
                            {"shape", std::vector<Index>(row.shape.begin(), row.shape.end())},
                            {"data_offsets", {missing_, missing_ + bytes}}};
        missing_ += bytes;
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');  // the data begin at a multiple of eight
    const std::uint64_t length = text.size();
    file_.write(std::as_bytes(std::span(&length, 1)));
    file_.write(std::as_bytes(std::span(text)));
}

void SafetensorsWriter::append(std::span<const std::byte> bytes) {
    CHECK(bytes.size() <= missing_, "{} bytes more than the table announced",
          bytes.size() - missing_);
    file_.write(bytes);
    missing_ -= bytes.size();
}

void SafetensorsWriter::commit() {
    CHECK(missing_ == 0, "{} bytes fewer than the table announced", missing_);
    file_.commit();
}

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
    std::vector<SafetensorsWriter::Row> table;
    for (const NamedTensor& named : tensors) {
        CHECK(named.tensor.device() == Device::cpu, "'{}' is not on the host", named.name);
        table.push_back({named.name, named.tensor.dtype(), named.tensor.shape()});
    }
    SafetensorsWriter writer(path, table, metadata);
    for (const NamedTensor& named : tensors)
        writer.append({named.tensor.raw(), named.tensor.bytes()});
    writer.commit();
}

}  // namespace gallop
