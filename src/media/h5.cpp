#include "media/h5.hpp"

#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include <hdf5.h>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/handle.hpp"
#include "media/digest.hpp"

// HDF5 only ever sees memory here (its "core" driver): we read and write the files. So a full disk
// is our own error, no half-written HDF5 file exists, and its file locks, which some network file
// systems lack, are never taken.

namespace gallop {
namespace {

template <auto Close>
using H5 = Handle<hid_t, Close, hid_t{H5I_INVALID_HID}>;
using H5File = H5<H5Fclose>;
using H5Data = H5<H5Dclose>;
using H5Space = H5<H5Sclose>;
using H5Type = H5<H5Tclose>;
using H5List = H5<H5Pclose>;
using H5Attribute = H5<H5Aclose>;

constexpr std::string_view bfloat16 = "bfloat16";
constexpr std::uint64_t max_file_bytes = std::uint64_t{4} << 30;
constexpr std::size_t max_text_bytes = std::size_t{16} << 20;

/// Text that ends every file of ours, after all that HDF5 reads: the SHA-256 of what is before it.
/// HDF5 1.10 crashes or loops for ever on some damaged files, so it is only given whole ones.
constexpr std::string_view seal_prefix = "\ngallop sha256 ";
constexpr std::size_t seal_bytes = seal_prefix.size() + 64 + 1;

std::string seal_of(std::string_view image) {
    return fmt::format("{}{}\n", seal_prefix, digest_text(image));
}

/// HDF5's name for a file in memory. It must not be the name of a real one, which HDF5 would
/// refuse, and must differ between files open at a time: nothing can lie below a file.
std::string memory_name(const std::filesystem::path& path) { return path.string() + "/memory"; }

/// Keeps HDF5 from printing its error stack: our exceptions say what is wrong.
class QuietErrors {
public:
    QuietErrors() {
        H5Eget_auto2(H5E_DEFAULT, &print_, &data_);
        H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    }
    ~QuietErrors() { H5Eset_auto2(H5E_DEFAULT, print_, data_); }
    QuietErrors(const QuietErrors&) = delete;
    QuietErrors& operator=(const QuietErrors&) = delete;

private:
    H5E_auto2_t print_ = nullptr;
    void* data_ = nullptr;
};

template <class T>
T written(T result, std::string_view what) {
    if (result < 0) throw Error(fmt::format("HDF5 cannot write {}", what));
    return result;
}

H5Type text_type() {
    H5Type type(written(H5Tcopy(H5T_C_S1), "a text"));
    written(H5Tset_size(type.get(), H5T_VARIABLE), "a text");  // h5py reads these as str
    written(H5Tset_cset(type.get(), H5T_CSET_UTF8), "a text");
    return type;
}

void write_attribute(hid_t where, const std::string& name, hid_t file_type, hid_t memory_type,
                     const void* value) {
    const H5Space space(written(H5Screate(H5S_SCALAR), name));
    const H5Attribute attribute(written(
        H5Acreate2(where, name.c_str(), file_type, space.get(), H5P_DEFAULT, H5P_DEFAULT), name));
    written(H5Awrite(attribute.get(), memory_type, value), name);
}

void write_attribute(hid_t where, const std::string& name, const Attribute& value) {
    if (const auto* text = std::get_if<std::string>(&value)) {
        CHECK(text->find('\0') == std::string::npos, "attribute '{}' contains a NUL byte", name);
        const char* characters = text->c_str();
        const H5Type type = text_type();
        write_attribute(where, name, type.get(), type.get(), &characters);
    } else if (const auto* integer = std::get_if<std::int64_t>(&value)) {
        write_attribute(where, name, H5T_STD_I64LE, H5T_NATIVE_INT64, integer);
    } else {
        write_attribute(where, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &std::get<double>(value));
    }
}

void write_data(hid_t file, const std::string& name, const Tensor& values, DType stored) {
    CHECK(values.numel() > 0, "{} has shape {} (must not be empty)", name,
          to_string(values.shape()));
    std::vector<hsize_t> shape(values.shape().begin(), values.shape().end());
    std::vector<hsize_t> chunk = shape;
    if (chunk.size() == 4) chunk[1] = 1;  // one latent frame
    const H5Space space(
        written(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), name));
    const H5List layout(written(H5Pcreate(H5P_DATASET_CREATE), name));
    written(H5Pset_obj_track_times(layout.get(), false), name);  // or no two files are the same
    written(H5Pset_chunk(layout.get(), static_cast<int>(chunk.size()), chunk.data()), name);
    written(H5Pset_shuffle(layout.get()), name);
    written(H5Pset_deflate(layout.get(), 1), name);  // higher levels cost more and save nothing
    const bool half = stored == DType::bf16;
    const H5Data data(written(H5Dcreate2(file, name.c_str(), half ? H5T_STD_U16LE : H5T_IEEE_F32LE,
                                         space.get(), H5P_DEFAULT, layout.get(), H5P_DEFAULT),
                              name));
    // Converted by us: HDF5's own conversion is far slower.
    Tensor converted(values.shape(), stored);
    convert(values, converted);
    written(H5Dwrite(data.get(), half ? H5T_NATIVE_UINT16 : H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL,
                     H5P_DEFAULT, converted.view().raw()),
            name);
    if (half) write_attribute(data.get(), "dtype", std::string(bfloat16));
}

/// Reads one file image; every failure names the file.
class Reader {
public:
    explicit Reader(const std::filesystem::path& path)
        : name_(path.string()), image_(read_text(path, max_file_bytes)) {
        if (!image_.starts_with("\x89HDF\r\n\x1A\n")) fail("not an HDF5 file");
        if (image_.size() < seal_bytes) fail("cut off");
        const std::string seal = image_.substr(image_.size() - seal_bytes);
        image_.resize(image_.size() - seal_bytes);
        if (!seal.starts_with(seal_prefix))
            fail("cut off, or not written by gallop: its check sum is missing at the end");
        if (seal != seal_of(image_)) fail("damaged or changed: its check sum is wrong");
        const H5List access(read(H5Pcreate(H5P_FILE_ACCESS), "the file"));
        read(H5Pset_fapl_core(access.get(), 1 << 20, false), "the file");
        read(H5Pset_file_image(access.get(), image_.data(), image_.size()), "the file");
        file_.reset(read(H5Fopen(memory_name(path).c_str(), H5F_ACC_RDONLY, access.get()),
                         "its structure"));
    }

    /// The data set as f32; undefined when there is none.
    Tensor data(const char* dataset, std::size_t rank, DType& stored) {
        if (read(H5Lexists(file_.get(), dataset, H5P_DEFAULT), dataset) == 0) return {};
        const H5Data data(read(H5Dopen2(file_.get(), dataset, H5P_DEFAULT), dataset));
        const Shape shape = check_layout(data.get(), dataset, rank);
        stored = stored_type(data.get(), dataset);
        Tensor values(shape, stored);
        read(H5Dread(data.get(), stored == DType::bf16 ? H5T_NATIVE_UINT16 : H5T_NATIVE_FLOAT,
                     H5S_ALL, H5S_ALL, H5P_DEFAULT, values.view().raw()),
             dataset);
        if (stored == DType::f32) return values;
        Tensor converted(shape);
        convert(values, converted);
        return converted;
    }

    Attributes attributes() {
        Attributes all;
        H5O_info_t info{};
        read(H5Oget_info2(file_.get(), &info, H5O_INFO_NUM_ATTRS), "its attributes");
        for (hsize_t i = 0; i < info.num_attrs; ++i) {
            const H5Attribute attribute(
                read(H5Aopen_by_idx(file_.get(), ".", H5_INDEX_NAME, H5_ITER_INC, i, H5P_DEFAULT,
                                    H5P_DEFAULT),
                     "its attributes"));
            std::array<char, 256> name{};
            read(H5Aget_name(attribute.get(), name.size(), name.data()), "an attribute's name");
            all.emplace(name.data(), this->attribute(attribute.get(), name.data()));
        }
        return all;
    }

private:
    [[noreturn]] void fail(std::string_view what) const {
        throw_input_error("{}: {}", name_, what);
    }
    template <class T>
    T read(T result, std::string_view what) const {
        if (result < 0) throw_input_error("{}: damaged or cut off: cannot read {}", name_, what);
        return result;
    }

    /// The shape, once every chunk is known to be there and the size to be possible: a small file
    /// must not make us allocate much.
    Shape check_layout(hid_t data, const char* dataset, std::size_t rank) const {
        const H5Space space(read(H5Dget_space(data), dataset));
        const H5List layout(read(H5Dget_create_plist(data), dataset));
        std::array<hsize_t, H5S_MAX_RANK> extents{};
        std::array<hsize_t, H5S_MAX_RANK> chunk{};
        if (H5Sget_simple_extent_ndims(space.get()) != static_cast<int>(rank) ||
            H5Pget_layout(layout.get()) != H5D_CHUNKED)
            throw_input_error("{}: {} is not a chunked array of rank {}", name_, dataset, rank);
        read(H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr), dataset);
        read(H5Pget_chunk(layout.get(), static_cast<int>(rank), chunk.data()), dataset);
        constexpr std::uint64_t best_deflate = 1032;  // bytes out of one byte, see zlib
        std::uint64_t bytes = 2;
        std::uint64_t chunks = 1;
        std::array<Index, H5S_MAX_RANK> shape{};
        for (std::size_t axis = 0; axis < rank; ++axis) {
            if (extents[axis] == 0 || chunk[axis] == 0 || chunk[axis] > extents[axis] ||
                __builtin_mul_overflow(bytes, extents[axis], &bytes) ||
                bytes > image_.size() * best_deflate)
                throw_input_error("{}: {} has an impossible shape", name_, dataset);
            chunks *= (extents[axis] + chunk[axis] - 1) / chunk[axis];
            shape[axis] = static_cast<Index>(extents[axis]);
        }
        hsize_t present = 0;
        read(H5Dget_num_chunks(data, space.get(), &present), dataset);
        if (present != chunks)
            throw_input_error("{}: {} has {} of its {} chunks", name_, dataset, present, chunks);
        return Shape(std::span(shape).first(rank));
    }

    DType stored_type(hid_t data, const char* dataset) const {
        const H5Type type(read(H5Dget_type(data), dataset));
        if (H5Tequal(type.get(), H5T_IEEE_F32LE) > 0) return DType::f32;
        if (H5Tequal(type.get(), H5T_STD_U16LE) > 0 && H5Aexists(data, "dtype") > 0) {
            const H5Attribute dtype(read(H5Aopen(data, "dtype", H5P_DEFAULT), dataset));
            if (attribute(dtype.get(), "dtype") == Attribute(std::string(bfloat16)))
                return DType::bf16;
        }
        throw_input_error("{}: {} is neither float32 nor bfloat16", name_, dataset);
    }

    Attribute attribute(hid_t attribute, const char* name) const {
        const H5Type type(read(H5Aget_type(attribute), name));
        const H5Space space(read(H5Aget_space(attribute), name));
        if (H5Sget_simple_extent_npoints(space.get()) != 1)
            throw_input_error("{}: attribute '{}' is not a single value", name_, name);
        switch (H5Tget_class(type.get())) {
            case H5T_INTEGER: {
                std::int64_t value = 0;
                read(H5Aread(attribute, H5T_NATIVE_INT64, &value), name);
                return value;
            }
            case H5T_FLOAT: {
                double value = 0;
                read(H5Aread(attribute, H5T_NATIVE_DOUBLE, &value), name);
                return value;
            }
            case H5T_STRING: return text(attribute, type.get(), name);
            default:
                throw_input_error("{}: attribute '{}' is neither number nor text", name_, name);
        }
    }

    std::string text(hid_t attribute, hid_t type, const char* name) const {
        if (H5Tis_variable_str(type) > 0) {
            char* characters = nullptr;
            read(H5Aread(attribute, type, &characters), name);
            const Handle<void*, H5free_memory> owner(characters);
            return characters == nullptr ? "" : characters;
        }
        const std::size_t bytes = H5Tget_size(type);
        if (bytes == 0 || bytes > max_text_bytes)
            throw_input_error("{}: attribute '{}' has {} bytes", name_, name, bytes);
        std::string characters(bytes, '\0');
        read(H5Aread(attribute, type, characters.data()), name);
        return characters.c_str();
    }

    std::string name_;
    std::string image_;
    H5File file_;
};

}  // namespace

void write_latents(const std::filesystem::path& path, const LatentsFile& latents) {
    CHECK(latents.stored == DType::bf16 || latents.stored == DType::f32,
          "latents stored as {} (must be bf16 or f32)", name_of(latents.stored));
    const QuietErrors quiet;
    std::string image;
    {
        const H5List create(written(H5Pcreate(H5P_FILE_CREATE), "a file"));
        written(H5Pset_obj_track_times(create.get(), false), "a file");
        const H5List access(written(H5Pcreate(H5P_FILE_ACCESS), "a file"));
        written(H5Pset_fapl_core(access.get(), 16 << 20, false), "a file");
        const H5File file(
            written(H5Fcreate(memory_name(path).c_str(), H5F_ACC_TRUNC, create.get(), access.get()),
                    "a file"));
        for (const auto& [name, value] : latents.attributes)
            write_attribute(file.get(), name, value);
        for (const auto& [name, values] :
             {std::pair{"video_base", &latents.video_base},
              std::pair{"video_final", &latents.video_final}, std::pair{"audio", &latents.audio}})
            if (values->defined()) write_data(file.get(), name, *values, latents.stored);
        written(H5Fflush(file.get(), H5F_SCOPE_GLOBAL), "a file");
        const auto bytes = written(H5Fget_file_image(file.get(), nullptr, 0), "a file");
        image.resize(static_cast<std::size_t>(bytes));
        written(H5Fget_file_image(file.get(), image.data(), image.size()), "a file");
    }
    write_atomically(path, image + seal_of(image));
}

LatentsFile read_latents(const std::filesystem::path& path) {
    const QuietErrors quiet;
    Reader reader(path);
    LatentsFile latents;
    latents.video_base = reader.data("video_base", 4, latents.stored);
    latents.video_final = reader.data("video_final", 4, latents.stored);
    latents.audio = reader.data("audio", 2, latents.stored);
    if (!latents.video_base.defined() && !latents.video_final.defined() && !latents.audio.defined())
        throw_input_error("{}: an HDF5 file without latents (video_base, video_final or audio)",
                          path.string());
    latents.attributes = reader.attributes();
    return latents;
}

}  // namespace gallop
