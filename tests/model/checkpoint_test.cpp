#include "model/checkpoint.hpp"

#include <array>
#include <cstring>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include "core/check.hpp"
#include "core/files.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using test::TemporaryFolder;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

const std::filesystem::path golden = GALLOP_GOLDEN;

std::vector<std::string> names(const Checkpoint& checkpoint) {
    std::vector<std::string> found;
    for (const StoredTensor& tensor : checkpoint.tensors()) found.push_back(tensor.name);
    return found;
}

void expect_same_content(const Checkpoint& a, const Checkpoint& b) {
    ASSERT_EQ(names(a), names(b));
    for (const StoredTensor& tensor : a.tensors()) {
        const Tensor left = a.read(tensor.name);
        const Tensor right = b.read(tensor.name);
        ASSERT_EQ(left.dtype(), right.dtype()) << tensor.name;
        ASSERT_EQ(left.shape(), right.shape()) << tensor.name;
        EXPECT_EQ(std::memcmp(left.view().raw(), right.view().raw(), left.bytes()), 0)
            << tensor.name;
    }
}

void compress(const std::filesystem::path& from, const std::filesystem::path& to) {
    const std::string plain = read_text(from);
    std::string packed(ZSTD_compressBound(plain.size()), '\0');
    packed.resize(ZSTD_compress(packed.data(), packed.size(), plain.data(), plain.size(), 1));
    write_atomically(to, packed);
}

std::vector<TensorSpec> specs_of(const Checkpoint& checkpoint, DType dtype = DType::f32) {
    std::vector<TensorSpec> specs;
    for (const StoredTensor& tensor : checkpoint.tensors())
        specs.push_back({.name = tensor.name, .shape = tensor.shape, .dtype = dtype});
    return specs;
}

// A file with x = [[1, 2, 3], [4, 5, 6]] and y = [−1.5, 1 + 2^−8].
std::filesystem::path write_two(const std::filesystem::path& path) {
    const std::array x{1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F};
    const std::array y{-1.5F, 1.00390625F};
    const Tensor tx = Tensor::of<float>({2, 3}, x);
    const Tensor ty = Tensor::of<float>({2}, y);
    write_safetensors(path, std::vector<NamedTensor>{{"x", tx}, {"y", ty}}, {{"who", "me"}});
    return path;
}

TEST(Checkpoint, ReadsAShardedFolder) {
    const auto checkpoint = Checkpoint::open(golden / "dit-tiny/checkpoint");
    EXPECT_EQ(checkpoint.files().size(), 2U);
    EXPECT_EQ(checkpoint.tensors().size(), 59U);  // 7 adapter + 6 layers of 8 + 4 output
    const StoredTensor* qkv = checkpoint.find("block.layers.0.attention.linear_qkv.weight");
    ASSERT_NE(qkv, nullptr);
    EXPECT_EQ(qkv->type, StoredType::bf16);
    // 3 experts of 4 query heads and 2 + 2 key and value heads of 16, and 4 gates; width 64
    EXPECT_EQ(qkv->shape, (Shape{3 * (64 + 32 + 32 + 4), 64}));
    const Tensor bands = checkpoint.read("adapter.rope.bands");
    EXPECT_EQ(bands.data<float>()[0], 1.0F);
    EXPECT_FLOAT_EQ(bands.data<float>()[1], 0.01F);  // 10000^(−1/2)
    EXPECT_EQ(checkpoint.find("no.such"), nullptr);
}

TEST(Checkpoint, ReadsATorchFileLikeItsSafetensorsTwin) {
    expect_same_content(Checkpoint::open(golden / "wan-vae-tiny/Wan2.2_VAE.pth"),
                        Checkpoint::open(golden / "wan-vae-tiny/Wan2.2_VAE.safetensors"));
    expect_same_content(Checkpoint::open(golden / "turbo-vae-tiny/checkpoint.ckpt"),
                        Checkpoint::open(golden / "turbo-vae-tiny/turbo_vae.safetensors"));
}

TEST(Checkpoint, ReadsCompressedShardsBeforePlainOnes) {
    const TemporaryFolder folder;
    const auto from = golden / "dit-tiny/checkpoint";
    std::filesystem::copy(from, folder.path(), std::filesystem::copy_options::recursive);
    const auto shard = folder / "model-00002-of-00002.safetensors";
    compress(shard, folder / "model-00002-of-00002.safetensors.zst");
    write_atomically(shard, "not looked at");
    const auto checkpoint = Checkpoint::open(folder.path());
    EXPECT_EQ(checkpoint.files()[1].extension(), ".zst");
    expect_same_content(checkpoint, Checkpoint::open(from));
}

// Two shards: "a" in the first, "b" in the second, and an index that also puts "c" and "d" in a third.
void write_shards(const std::filesystem::path& folder) {
    const Tensor one = Tensor::of<float>({1}, std::array{1.0F});
    write_safetensors(folder / "1.safetensors", std::vector<NamedTensor>{{"a", one}});
    write_safetensors(folder / "2.safetensors", std::vector<NamedTensor>{{"b", one}});
    write_atomically(folder / "model.safetensors.index.json",
                     R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors",)"
                     R"("c":"3.safetensors","d":"3.safetensors"}})");
}

TEST(Checkpoint, NeedsOnlyTheShardsThatHoldWhatIsLoaded) {
    const TemporaryFolder folder;
    write_shards(folder.path());
    const auto on = make_cpu_backend(1);
    const auto checkpoint = Checkpoint::open(folder.path());
    EXPECT_THAT(names(checkpoint), ElementsAre("a", "b"));
    EXPECT_THAT(checkpoint.absent_shards(), ElementsAre("3.safetensors"));
    const std::vector<TensorSpec> both{{.name = "a", .shape = {1}}, {.name = "b", .shape = {1}}};
    EXPECT_EQ(checkpoint.load(both, *on)["b"].span<float>()[0], 1.0F);
}

TEST(Checkpoint, NamesTheShardOfEveryTensorThatIsMissing) {
    const TemporaryFolder folder;
    write_shards(folder.path());
    std::filesystem::remove(folder / "2.safetensors");
    const auto on = make_cpu_backend(1);
    const auto checkpoint = Checkpoint::open(folder.path());
    const std::vector<TensorSpec> specs{{.name = "a", .shape = {2}},
                                        {.name = "b", .shape = {1}},
                                        {.name = "c", .shape = {3}},
                                        {.name = "d", .shape = {4}, .optional = true},
                                        {.name = "e", .shape = {5}}};
    EXPECT_THAT(
        [&] { (void)checkpoint.load(specs, *on); },
        ThrowsMessage<InputError>(AllOf(HasSubstr("misshapen a [1] ([2] wanted)"),
                                        HasSubstr("missing   b [1] (2.safetensors is not there)\n"),
                                        HasSubstr("missing   c [3] (3.safetensors is not there)\n"),
                                        HasSubstr("missing   d [4] (3.safetensors is not there)\n"),
                                        testing::EndsWith("missing   e [5]"))));
    EXPECT_THAT([&] { (void)checkpoint.read("c"); },
                ThrowsMessage<InputError>(HasSubstr("no tensor 'c' (3.safetensors is not there)")));
}

TEST(Checkpoint, ReadsNoE4M3WhoseScaleIsInAShardThatIsNotThere) {
    const TemporaryFolder folder;
    const Tensor w = Tensor::zeros({2, 2}, DType::f8_e4m3);
    write_safetensors(folder / "1.safetensors", std::vector<NamedTensor>{{"w", w}});
    write_atomically(folder / "model.safetensors.index.json",
                     R"({"weight_map":{"w":"1.safetensors","w.__fp8_scale":"2.safetensors"}})");
    const auto on = make_cpu_backend(1);
    const std::vector<TensorSpec> specs{{.name = "w", .shape = {2, 2}}};
    EXPECT_THAT(
        [&] { (void)Checkpoint::open(folder.path()).load(specs, *on); },
        ThrowsMessage<InputError>(HasSubstr("missing   w [2, 2] (2.safetensors is not there)")));
}

TEST(Checkpoint, ReadsASingleFileInAFolderOrByItsName) {
    const TemporaryFolder folder;
    write_two(folder / "model.safetensors");
    const auto by_folder = Checkpoint::open(folder.path());
    EXPECT_THAT(names(by_folder), ElementsAre("x", "y"));
    EXPECT_EQ(by_folder.metadata().at("who"), "me");
    expect_same_content(by_folder, Checkpoint::open(folder / "model.safetensors"));
    compress(folder / "model.safetensors", folder / "other.safetensors.zst");
    expect_same_content(by_folder, Checkpoint::open(folder / "other.safetensors.zst"));
}

TEST(Checkpoint, ConvertsWhileLoading) {
    const TemporaryFolder folder;
    const auto checkpoint = Checkpoint::open(write_two(folder / "two.safetensors"));
    const auto backend = make_cpu_backend(1);
    auto specs = specs_of(checkpoint);
    specs[1].dtype = DType::bf16;
    const Weights weights = checkpoint.load(specs, *backend);
    EXPECT_EQ(weights["x"].shape(), (Shape{2, 3}));
    EXPECT_THAT(weights["x"].span<float>(), ElementsAre(1, 2, 3, 4, 5, 6));
    // 1 + 2^−8 lies in the middle of two bf16 values; the even one is 1.
    EXPECT_EQ(to_float(weights["y"].data<bf16>()[0]), -1.5F);
    EXPECT_EQ(to_float(weights["y"].data<bf16>()[1]), 1.0F);
    EXPECT_EQ(weights.bytes(), 24U + 4U);
    EXPECT_THROW(weights["z"], Error);
}

TEST(Checkpoint, LoadsEveryGoldenCheckpointWhole) {
    const auto backend = make_cpu_backend(1);
    for (const char* path :
         {"dit-tiny/checkpoint", "wan-vae-tiny/Wan2.2_VAE.pth", "turbo-vae-tiny/checkpoint.ckpt",
          "audio-vae-tiny/model.safetensors"}) {
        const auto checkpoint = Checkpoint::open(golden / path);
        for (const DType dtype : {DType::f32, DType::bf16}) {
            const Weights weights = checkpoint.load(specs_of(checkpoint, dtype), *backend);
            for (const StoredTensor& tensor : checkpoint.tensors()) {
                const Tensor wide = checkpoint.read_f32(tensor.name);
                Tensor expected(tensor.shape, dtype);
                convert(wide, expected);
                EXPECT_EQ(std::memcmp(expected.view().raw(), weights[tensor.name].view().raw(),
                                      expected.bytes()),
                          0)
                    << path << ' ' << tensor.name;
            }
        }
    }
}

TEST(Checkpoint, CutsThePrefixAndIgnoresTheRest) {
    const auto checkpoint = Checkpoint::open(golden / "audio-vae-tiny/model.safetensors");
    const auto backend = make_cpu_backend(1);
    const std::string prefix = "pretransform.model.decoder.";
    std::vector<TensorSpec> specs;
    for (const StoredTensor& tensor : checkpoint.tensors())
        if (tensor.name.starts_with(prefix))
            specs.push_back({.name = tensor.name.substr(prefix.size()), .shape = tensor.shape});
    ASSERT_LT(specs.size(), checkpoint.tensors().size());
    const Weights weights = checkpoint.load(specs, *backend, {.prefix = prefix});
    EXPECT_TRUE(weights.has("layers.0.bias"));
}

TEST(Checkpoint, ListsEveryTensorThatDoesNotFitAtOnce) {
    const TemporaryFolder folder;
    const auto checkpoint = Checkpoint::open(write_two(folder / "two.safetensors"));
    const auto backend = make_cpu_backend(1);
    const std::vector<TensorSpec> specs{
        {.name = "x", .shape = {3, 2}}, {.name = "a", .shape = {7}}, {.name = "b", .shape = {8}}};
    EXPECT_THAT([&] { (void)checkpoint.load(specs, *backend); },
                ThrowsMessage<InputError>(AllOf(
                    HasSubstr("two.safetensors: 4 tensors"),
                    HasSubstr("misshapen x [2, 3] ([3, 2] wanted)"), HasSubstr("missing   a [7]"),
                    HasSubstr("missing   b [8]"), HasSubstr("surplus   y [2]"))));
    const std::vector<TensorSpec> lenient{{.name = "x", .shape = {1, 3}, .any_rows = true},
                                          {.name = "a", .shape = {7}, .optional = true}};
    const Weights weights = checkpoint.load(lenient, *backend, {.strict = false});
    EXPECT_EQ(weights["x"].shape(), (Shape{2, 3}));
    EXPECT_FALSE(weights.has("a"));
}

TEST(Checkpoint, MultipliesE4M3ByItsScale) {
    const TemporaryFolder folder;
    // 0x38 is 1, 0x40 is 2, 0xb8 is −1, 0x01 is 2^−9.
    const std::array codes{f8_e4m3{0x38}, f8_e4m3{0x40}, f8_e4m3{0xb8}, f8_e4m3{0x01}};
    const std::array one{0.5F};
    const std::array rows{10.0F, 512.0F};
    const Tensor w = Tensor::of<f8_e4m3>({2, 2}, codes);
    const Tensor scalar = Tensor::of<float>({}, one);
    const Tensor by_row = Tensor::of<float>({2, 1}, rows);
    write_safetensors(
        folder / "f8.safetensors",
        std::vector<NamedTensor>{
            {"a", w}, {"a.__fp8_scale", scalar}, {"b", w}, {"b.__fp8_scale", by_row}, {"c", w}});
    const auto checkpoint = Checkpoint::open(folder / "f8.safetensors");
    EXPECT_THAT(names(checkpoint), ElementsAre("a", "b", "c"));
    const auto backend = make_cpu_backend(1);
    const Weights weights = checkpoint.load(specs_of(checkpoint), *backend);
    EXPECT_THAT(weights["a"].span<float>(), ElementsAre(0.5F, 1.0F, -0.5F, 0x1p-10F));
    EXPECT_THAT(weights["b"].span<float>(), ElementsAre(10.0F, 20.0F, -512.0F, 1.0F));
    EXPECT_THAT(weights["c"].span<float>(), ElementsAre(1.0F, 2.0F, -1.0F, 0x1p-9F));
    EXPECT_THAT(checkpoint.read_f32("b").span<float>(), ElementsAre(10.0F, 20.0F, -512.0F, 1.0F));
}

TEST(Checkpoint, ConvertsTensorsLongerThanTheStagingBuffer) {
    const TemporaryFolder folder;
    constexpr Index rows = 1500;
    constexpr Index columns = 1001;  // 1.5 million elements; a piece ends inside a row
    Tensor w({rows, columns}, DType::f8_e4m3);
    Tensor scale({rows});
    for (Index r = 0; r < rows; ++r) {
        scale.data<float>()[r] = static_cast<float>(r + 1);
        for (Index c = 0; c < columns; ++c) w.data<f8_e4m3>()[r * columns + c] = to_f8_e4m3(1.0F);
    }
    write_safetensors(folder / "long.safetensors",
                      std::vector<NamedTensor>{{"w", w}, {"w.__fp8_scale", scale}});
    const Tensor read = Checkpoint::open(folder / "long.safetensors").read_f32("w");
    for (Index i = 0; i < read.numel(); ++i)
        ASSERT_EQ(read.data<float>()[i], static_cast<float>(i / columns + 1)) << i;
}

/// A file with one matrix that is read in many pieces, all of them 1.
Checkpoint write_large(const std::filesystem::path& path) {
    Tensor x({6000, 2000});
    std::fill_n(x.data<float>(), x.numel(), 1.0F);
    write_safetensors(path, std::vector<NamedTensor>{{"x", x}});
    return Checkpoint::open(path);
}

TEST(Checkpoint, PadsRowsThatComeInManyPieces) {
    const TemporaryFolder folder;
    const Checkpoint checkpoint = write_large(folder.path() / "a.safetensors");
    const auto on = make_cpu_backend();
    const Slice slice{{6000, 2000}, {{0, 2500, 100}, {3000, 3000, 2600}}, 16, 1900};
    const std::vector<TensorSpec> specs{
        {.name = "x", .shape = {5700, 1920}, .dtype = DType::bf16, .slice = slice}};
    const Weights weights = checkpoint.load(specs, *on);
    const auto values = weights["x"].span<bf16>();
    for (Index row = 0; row < 5700; ++row)
        for (Index column = 0; column < 1920; ++column) {
            const bool filled = row >= 100 && row < 5600 && column < 1900;
            ASSERT_EQ(to_float(values[static_cast<std::size_t>(row * 1920 + column)]),
                      filled ? 1.0F : 0.0F)
                << row << " " << column;
        }
}

TEST(Checkpoint, SaysThatAFileEndedWhileItWasRead) {
    const TemporaryFolder folder;
    const auto path = folder.path() / "a.safetensors";
    const Checkpoint checkpoint = write_large(path);
    std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
    const auto on = make_cpu_backend();
    EXPECT_THAT([&] { checkpoint.load(specs_of(checkpoint), *on); },
                ThrowsMessage<InputError>(HasSubstr("truncated")));
}

TEST(Checkpoint, AnArrayThatHasNoRoomEndsTheReading) {
    const TemporaryFolder folder;
    const Checkpoint checkpoint = write_large(folder.path() / "a.safetensors");
    const auto on = make_cpu_backend();
    const Index rows = Index{1} << 40;
    const std::vector<TensorSpec> specs{
        {.name = "x",
         .shape = {rows, 2000},
         .slice = Slice{{6000, 2000}, {{0, 3000, 0}, {3000, 3000, rows - 3000}}}}};
    EXPECT_THROW(checkpoint.load(specs, *on), OutOfMemoryError);
}

TEST(Checkpoint, PreparesConvolutionKernels) {
    const auto checkpoint = Checkpoint::open(golden / "turbo-vae-tiny/checkpoint.ckpt");
    const auto backend = make_cpu_backend(1);
    std::vector<TensorSpec> specs = specs_of(checkpoint);
    for (TensorSpec& spec : specs) spec.conv = spec.shape.rank() == 5;
    const Weights weights = checkpoint.load(specs, *backend);
    const std::string name = "decoder.conv_in.conv.weight";
    const Tensor expected = backend->prepare_conv(checkpoint.read_f32(name), DType::f32);
    EXPECT_EQ(weights[name].shape(), expected.shape());
    EXPECT_EQ(std::memcmp(weights[name].view().raw(), expected.view().raw(), expected.bytes()), 0);
}

// A file of one tensor "w", its bytes given.
template <class T, std::size_t N>
std::filesystem::path write_raw(const std::filesystem::path& path, const std::string& type,
                                const std::array<T, N>& values) {
    const std::string json = fmt::format(
        R"({{"w":{{"dtype":"{}","shape":[{}],"data_offsets":[0,{}]}}}})", type, N, sizeof values);
    const std::uint64_t length = json.size();
    std::string bytes(reinterpret_cast<const char*>(&length), sizeof length);
    bytes += json;
    bytes.append(reinterpret_cast<const char*>(values.data()), sizeof values);
    write_atomically(path, bytes);
    return path;
}

TEST(Checkpoint, ReadsHalfAndDoublePrecision) {
    const TemporaryFolder folder;
    const auto half = Checkpoint::open(write_raw(
        folder / "half.safetensors", "F16", std::array<std::uint16_t, 3>{0x3c00, 0xc000, 0x0001}));
    EXPECT_THAT(half.read_f32("w").span<float>(), ElementsAre(1.0F, -2.0F, 0x1p-24F));
    const auto wide = Checkpoint::open(
        write_raw(folder / "wide.safetensors", "F64", std::array{0.5, 1e300, 1.0 / 3.0}));
    EXPECT_THAT(wide.read_f32("w").span<float>(),
                ElementsAre(0.5F, std::numeric_limits<float>::infinity(), 1.0F / 3.0F));
    EXPECT_THAT(
        [&] { (void)wide.read("w"); },
        ThrowsMessage<InputError>(HasSubstr("w is F64 (not a type the engine computes with)")));
}

TEST(Checkpoint, RefusesIntegersAsWeights) {
    const TemporaryFolder folder;
    const auto checkpoint = Checkpoint::open(
        write_raw(folder / "i.safetensors", "I64", std::array<std::int64_t, 2>{3, -4}));
    EXPECT_THAT(checkpoint.read("w").span<std::int64_t>(), ElementsAre(3, -4));
    const auto backend = make_cpu_backend(1);
    EXPECT_THAT([&] { (void)checkpoint.load(specs_of(checkpoint), *backend); },
                ThrowsMessage<InputError>(HasSubstr("mistyped  w I64 (a floating type wanted)")));
    EXPECT_THROW((void)checkpoint.read_f32("w"), InputError);
}

TEST(Checkpoint, RefusesScalesThatDoNotFit) {
    const TemporaryFolder folder;
    const Tensor w = Tensor::zeros({2, 3}, DType::f8_e4m3);
    const Tensor scale = Tensor::zeros({3});
    write_safetensors(folder / "f8.safetensors",
                      std::vector<NamedTensor>{{"w", w}, {"w.__fp8_scale", scale}});
    EXPECT_THAT(
        [&] { (void)Checkpoint::open(folder / "f8.safetensors"); },
        ThrowsMessage<InputError>(HasSubstr("w.__fp8_scale: F32 [3] (one value, or one a row")));
}

TEST(Checkpoint, ReadsScalesBehindTheirWeightsFromACompressedFile) {
    const TemporaryFolder folder;
    const std::array codes{f8_e4m3{0x38}, f8_e4m3{0x40}};
    const std::array factor{3.0F};
    const Tensor w = Tensor::of<f8_e4m3>({2}, codes);
    const Tensor scale = Tensor::of<float>({1}, factor);
    write_safetensors(folder / "f8.safetensors",
                      std::vector<NamedTensor>{{"a", w}, {"b", w}, {"a.__fp8_scale", scale}});
    compress(folder / "f8.safetensors", folder / "f8.safetensors.zst");
    const auto checkpoint = Checkpoint::open(folder / "f8.safetensors.zst");
    const auto backend = make_cpu_backend(1);
    const Weights weights = checkpoint.load(specs_of(checkpoint), *backend);
    EXPECT_THAT(weights["a"].span<float>(), ElementsAre(3, 6));
    EXPECT_THAT(weights["b"].span<float>(), ElementsAre(1, 2));
}

TEST(Checkpoint, RefusesDamagedCompressedFiles) {
    const TemporaryFolder folder;
    const auto plain = write_two(folder / "two.safetensors");
    const auto packed = folder / "two.safetensors.zst";
    compress(plain, packed);
    const std::string whole = read_text(packed);
    const auto load = [&](std::string_view bytes) {
        write_atomically(packed, bytes);
        return Checkpoint::open(packed).read("y");
    };
    EXPECT_EQ(load(whole).numel(), 2);
    for (std::size_t size = 0; size + 1 < whole.size(); size += 3)
        EXPECT_THROW((void)load(std::string_view(whole).substr(0, size)), InputError) << size;
    EXPECT_THAT([&] { (void)load("not zstd at all, but long enough to be looked at"); },
                ThrowsMessage<InputError>(HasSubstr("does not decompress")));
}

TEST(Checkpoint, BelievesNoSizeThatACompressedFileCannotHold) {
    const TemporaryFolder folder;
    const std::string json =
        R"({"w":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}})";
    const std::uint64_t length = json.size();
    write_atomically(folder / "bomb",
                     std::string(reinterpret_cast<const char*>(&length), 8) + json);
    compress(folder / "bomb", folder / "bomb.safetensors.zst");
    EXPECT_THAT([&] { (void)Checkpoint::open(folder / "bomb.safetensors.zst"); },
                ThrowsMessage<InputError>(HasSubstr("truncated")));
}

TEST(Checkpoint, SaysWhatIsNotThere) {
    const TemporaryFolder folder;
    EXPECT_THAT([&] { (void)Checkpoint::open(folder / "none"); },
                ThrowsMessage<InputError>(HasSubstr("no such file")));
    EXPECT_THAT([&] { (void)Checkpoint::open(folder.path()); },
                ThrowsMessage<InputError>(HasSubstr("neither model.safetensors.index.json nor")));
    const auto checkpoint = Checkpoint::open(write_two(folder / "two.safetensors"));
    EXPECT_THAT([&] { (void)checkpoint.read("z"); },
                ThrowsMessage<InputError>(HasSubstr("no tensor 'z'")));
}

}  // namespace
}  // namespace gallop
