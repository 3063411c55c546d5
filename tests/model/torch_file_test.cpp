#include "model/torch_file.hpp"

#include <cstring>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/files.hpp"
#include "model/torch_pickle.hpp"
#include "model/zip.hpp"
#include "support/memory_source.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using test::MemorySource;
using test::TemporaryFolder;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;
using namespace std::string_literals;

// ---- pickles, written by hand
// ---------------------------------------------------------------------

std::string text(std::string_view value) {
    const auto size = static_cast<std::uint32_t>(value.size());
    return "X" + std::string(reinterpret_cast<const char*>(&size), 4).append(value);
}
std::string number(std::int64_t value) {
    return "\x8a\x08" + std::string(reinterpret_cast<const char*>(&value), 8);
}
std::string tuple(const std::vector<std::int64_t>& values) {
    std::string out = "(";
    for (const std::int64_t value : values) out += number(value);
    return out + "t";
}
const std::string ordered = "ccollections\nOrderedDict\n)R";

struct Made {
    std::vector<std::int64_t> extents{2};
    std::vector<std::int64_t> strides{1};
    std::int64_t first = 0;
    std::int64_t count = 2;
    std::string storage = "torch\nFloatStorage";
    std::string key = "0";
};
std::string tensor(const Made& made) {
    return "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "c" + made.storage + "\n" +
           text(made.key) + text("cpu") + number(made.count) + "tQ" + number(made.first) +
           tuple(made.extents) + tuple(made.strides) + "\x89" + ordered + "tR";
}
// {"a": value}
std::string map_of(const std::string& value) { return "\x80\x02}(" + text("a") + value + "u."; }

void expect_refused(const std::string& pickle, const std::string& why) {
    EXPECT_THAT([&] { (void)read_torch_pickle(pickle, "file"); },
                ThrowsMessage<InputError>(HasSubstr(why)));
}

TEST(TorchPickle, BuildsTensors) {
    const auto found = read_torch_pickle(
        map_of(tensor({{2, 3}, {3, 1}, 5, 11, "torch\nBFloat16Storage", "17"})), "file");
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].name, "a");
    EXPECT_EQ(found[0].type, StoredType::bf16);
    EXPECT_EQ(found[0].shape, (Shape{2, 3}));
    EXPECT_EQ(found[0].storage, "17");
    EXPECT_EQ(found[0].storage_count, 11U);
    EXPECT_EQ(found[0].first, 5U);
}

TEST(TorchPickle, FindsTheMapUnderItsUsualNames) {
    const std::string inner = "}(" + text("module.w") + tensor({}) + "u";
    for (const char* name : {"ema_state_dict", "state_dict", "model"}) {
        const auto found = read_torch_pickle(
            "\x80\x02}(" + text("epoch") + "K\x07" + text(name) + inner + text("loss") + "Nu.",
            "file");
        ASSERT_EQ(found.size(), 1U);
        EXPECT_EQ(found[0].name, "w");
    }
    // The averaged weights come first.
    const auto both =
        read_torch_pickle("\x80\x02}(" + text("state_dict") + "}(" + text("s") + tensor({}) + "u" +
                              text("ema_state_dict") + inner + "u.",
                          "file");
    EXPECT_EQ(both[0].name, "w");
}

TEST(TorchPickle, PassesOverParametersMetadataAndPlainValues) {
    const std::string parameter =
        "ctorch._utils\n_rebuild_parameter\n" + tensor({}) + "\x88" + ordered + "\x87R";
    const std::string pickle = "\x80\x02" + ordered + "(" + text("p") + parameter + text("list") +
                               "](K\x01M\x02\x01J\x03\x00\x00\x00"
                               "e"s +
                               text("float") + "G\x3f\xe0\0\0\0\0\0\0"s + text("size") +
                               "ctorch\nSize\n(K\x01t\x85R" + "u}" + text("_metadata") + ordered +
                               "sb.";
    const auto found = read_torch_pickle(pickle, "file");
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].name, "p");
}

TEST(TorchPickle, RefusesEveryOtherGlobal) {
    for (const char* global :
         {"os\nsystem", "builtins\neval", "torch\nload", "torch._utils\n_rebuild_tensor",
          "collections\nCounter", "torch\nUntypedStorage", "\n"})
        expect_refused(map_of(std::string("c") + global + "\n"), "is not allowed");
    expect_refused(
        "\x80\x02"
        "cos\nsystem\n(X\x02\x00\x00\x00lstR."s,
        "global 'os.system' is not allowed");
}

TEST(TorchPickle, RefusesEveryOtherOpcode) {
    const std::string known = "\x80(}])t\x85\x86\x87N\x88\x89GJKM\x8aXqrhjaesucQRb.";
    for (int code = 0; code < 256; ++code)
        if (known.find(static_cast<char>(code)) == std::string::npos)
            expect_refused(std::string("\x80\x02") + static_cast<char>(code) + "1\n.",
                           fmt::format("opcode 0x{:02x} is not allowed", code));
    expect_refused("\x80\x04.", "protocol 4");
}

TEST(TorchPickle, RefusesEveryTruncation) {
    const std::string whole = map_of(tensor({}));
    for (std::size_t size = 0; size < whole.size(); ++size)
        EXPECT_THROW((void)read_torch_pickle(whole.substr(0, size), "file"), InputError) << size;
}

TEST(TorchPickle, RefusesStacksThatDoNotAddUp) {
    for (const char* pickle : {".", "t.", "(t",
                               "K\x01"
                               "K\x02s.",
                               "}K\x01s.", "}(K\x01u.", "(K\x01}b.", "(R.", "))R.", "Nb.", "Q.",
                               ")Q.", "h\x05.", "q\x05.", "](a.", "(K\x01(a."})
        EXPECT_THROW((void)read_torch_pickle(pickle, "file"), InputError) << pickle;
}

TEST(TorchPickle, StaysSmallWhateverTheDepth) {
    // Ten million marks, lists in lists, and a list in itself.
    expect_refused(std::string(10'000'000, '('), "more than");
    std::string deep = "\x80\x02";
    for (int i = 0; i < 400'000; ++i) deep += ']';
    for (int i = 0; i < 399'999; ++i) deep += 'a';
    expect_refused(deep + ".", "holds no map of tensors");
    expect_refused(
        "\x80\x02]q\x01"
        "h\x01"
        "a.",
        "holds no map of tensors");
    expect_refused(std::string(3'000'000, 'N'), "more than 1048576 values");
    std::string many = "\x80\x02Nq\x01";
    for (int i = 0; i < 2'000'000; ++i) many += "h\x01";
    expect_refused(many, "a stack of more than");
}

TEST(TorchPickle, RefusesTensorsThatLeaveTheirStorage) {
    EXPECT_EQ(read_torch_pickle(map_of(tensor({{2}, {1}, 3, 5})), "file").size(), 1U);
    expect_refused(map_of(tensor({{2}, {1}, 4, 5})), "leave its storage of 5");
    expect_refused(map_of(tensor({{2}, {1}, -1, 5})), "leave its storage");
    expect_refused(map_of(tensor({{6}, {1}, 0, 5})), "leave its storage");
    expect_refused(map_of(tensor({{2}, {1}, 0, -5})), "leave its storage");
    const std::int64_t most = std::numeric_limits<std::int64_t>::max();
    expect_refused(map_of(tensor({{2}, {1}, most, 5})), "leave its storage");
    expect_refused(map_of(tensor({{most}, {1}, 0, most})), "too many elements");
    expect_refused(map_of(tensor({{1LL << 40, 1LL << 40}, {1LL << 40, 1}, 0, 5})),
                   "too many elements");
    expect_refused(map_of(tensor({{-2}, {1}, 0, 5})), "not a natural number");
    expect_refused(map_of(tensor({{1, 1, 1, 1, 1, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 1, 1, 1}, 0, 5})),
                   "more than 8 extents");
}

TEST(TorchPickle, RefusesTensorsThatAreNotContiguous) {
    expect_refused(map_of(tensor({{2, 3}, {1, 2}, 0, 6})),
                   "not contiguous: extents [2, 3], strides [1, 2]");
    expect_refused(map_of(tensor({{1000, 1000}, {0, 0}, 0, 1})),
                   "not contiguous");  // an expanded scalar
    expect_refused(map_of(tensor({{2, 3}, {1}, 0, 6})), "not contiguous");
    // No step is ever taken along an extent of 1, and none at all in an empty tensor.
    EXPECT_EQ(read_torch_pickle(map_of(tensor({{2, 1, 3}, {3, 77, 1}, 0, 6})), "file").size(), 1U);
    EXPECT_EQ(read_torch_pickle(map_of(tensor({{0, 3}, {5, 1}, 0, 0})), "file").size(), 1U);
}

TEST(TorchPickle, RefusesTheSameNameTwice) {
    expect_refused("\x80\x02}(" + text("module.a") + tensor({}) + text("a") + tensor({}) + "u.",
                   "names 'a' twice");
}

// ---- archives
// ---------------------------------------------------------------------------------------

void put(std::string& bytes, std::size_t at, auto value) {
    std::memcpy(bytes.data() + at, &value, sizeof value);
}

// A whole archive of two tensors.
std::string archive(const TemporaryFolder& folder, const std::string& under = {}) {
    const std::array x{1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F};
    const std::array y{7.0F};
    const std::vector<TorchWriter::Row> table{{"x", {2, 3}}, {"module.y", {}}};
    TorchWriter writer(folder / "made.pth", table, under);
    writer.append(Tensor::of<float>({2, 3}, x));
    writer.append(Tensor::of<float>({}, y));
    writer.commit();
    return read_text(folder / "made.pth");
}

TEST(TorchFile, ReadsWhatItWrites) {
    const TemporaryFolder folder;
    for (const char* under : {"", "ema_state_dict"}) {
        archive(folder, under);
        const auto checkpoint = Checkpoint::open(folder / "made.pth");
        EXPECT_THAT(checkpoint.read("x").span<float>(), ElementsAre(1, 2, 3, 4, 5, 6));
        EXPECT_EQ(checkpoint.read("x").shape(), (Shape{2, 3}));
        EXPECT_THAT(checkpoint.read("y").span<float>(), ElementsAre(7));
        EXPECT_EQ(checkpoint.find("x")->offset % 64, 0U);
    }
}

// See golden/torch/make.py: weights 0, 1, 2, … beside an optimizer and plain values.
TEST(TorchFile, ReadsWhatATrainerSaves) {
    const auto checkpoint =
        Checkpoint::open(std::filesystem::path(GALLOP_GOLDEN) / "torch/ema.ckpt");
    std::vector<std::string> names;
    for (const StoredTensor& tensor : checkpoint.tensors()) names.push_back(tensor.name);
    EXPECT_THAT(names,
                ElementsAre("0.bias", "0.weight", "1.bias", "1.num_batches_tracked",
                            "1.running_mean", "1.running_var", "1.weight", "half", "shared"));
    EXPECT_THAT(checkpoint.read("0.weight").span<float>(), ElementsAre(0, 1, 2, 3, 4, 5));
    EXPECT_THAT(checkpoint.read("1.running_var").span<float>(), ElementsAre(14, 15));
    EXPECT_THAT(checkpoint.read("shared").span<float>(), ElementsAre(3, 4, 5));
    EXPECT_EQ(checkpoint.read("1.num_batches_tracked").data<std::int64_t>()[0], 1);
    const Tensor half = checkpoint.read("half");
    EXPECT_EQ(half.dtype(), DType::bf16);
    EXPECT_EQ(half.shape(), (Shape{1, 2}));
    EXPECT_THAT(checkpoint.read_f32("half").span<float>(), ElementsAre(0.5F, -2.0F));
}

TEST(TorchFile, WriterHoldsToItsTable) {
    const TemporaryFolder folder;
    const std::vector<TorchWriter::Row> table{{"x", {2}}};
    {
        TorchWriter writer(folder / "x.pth", table);
        EXPECT_THROW(writer.commit(), Error);
        EXPECT_THROW(writer.append(Tensor({3})), Error);
        EXPECT_THROW(writer.append(Tensor({2}, DType::bf16)), Error);
        writer.append(Tensor::zeros({2}));
        EXPECT_THROW(writer.append(Tensor::zeros({2})), Error);
    }
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

std::vector<StoredTensor> read(const std::string& bytes) {
    MemorySource source(bytes);
    return read_torch_file(source, "file");
}

TEST(TorchFile, RefusesEveryTruncation) {
    const TemporaryFolder folder;
    const std::string whole = archive(folder);
    EXPECT_EQ(read(whole).size(), 2U);
    for (std::size_t size = 0; size < whole.size(); ++size)
        EXPECT_THROW((void)read(whole.substr(0, size)), InputError) << size;
}

void expect_archive_refused(const std::string& bytes, const std::string& why) {
    EXPECT_THAT([&] { (void)read(bytes); }, ThrowsMessage<InputError>(HasSubstr(why)));
}

TEST(TorchFile, RefusesCompressedEncryptedAndOverlappingMembers) {
    const TemporaryFolder folder;
    const std::string whole = archive(folder);
    const std::size_t first = whole.find("PK\x01\x02");
    const std::size_t last = whole.rfind("PK\x01\x02");
    const auto with = [&](std::size_t at, auto value) {
        std::string bytes = whole;
        put(bytes, at, value);
        return bytes;
    };
    expect_archive_refused(with(first + 10, std::uint16_t{8}), "'archive/data.pkl' is compressed");
    expect_archive_refused(with(first + 8, std::uint16_t{1}), "'archive/data.pkl' is encrypted");
    // The zip64 field of a member: id, size, bytes, packed bytes, offset of its header.
    const std::size_t extra = last + 46 + std::strlen("archive/data/1") + 4;
    expect_archive_refused(with(extra, std::uint64_t{1} << 40), "is stored in 4 bytes but has");
    std::string bomb = with(extra, std::uint64_t{1} << 40);
    put(bomb, extra + 8, std::uint64_t{1} << 40);
    expect_archive_refused(bomb, "truncated: member 'archive/data/1'");
    expect_archive_refused(with(extra + 16, std::uint64_t{0}), "overlap");
    expect_archive_refused(with(extra + 16, ~std::uint64_t{0}), "leaves the data");
    expect_archive_refused(with(extra + 16, std::uint64_t{1}), "no zip member at byte 1");
    expect_archive_refused(with(last + 46, 'b'), "no member 'archive/data/1'");
    expect_archive_refused(with(last + 46 + 13, '0'), "two members are named 'archive/data/0'");
    expect_archive_refused(with(extra - 2, std::uint16_t{8}), "lacks its zip64 sizes");
}

TEST(TorchFile, RefusesDirectoriesThatLeaveTheFile) {
    const TemporaryFolder folder;
    const std::string whole = archive(folder);
    const std::size_t end64 = whole.rfind("PK\x06\x06");
    const auto with = [&](std::size_t at, std::uint64_t value) {
        std::string bytes = whole;
        put(bytes, at, value);
        return bytes;
    };
    expect_archive_refused(with(end64 + 48, ~std::uint64_t{0}), "leaves the file");
    expect_archive_refused(with(end64 + 40, ~std::uint64_t{0}), "leaves the file");
    expect_archive_refused(with(end64 + 32, ~std::uint64_t{0}), "malformed zip directory");
    expect_archive_refused(with(end64 + 56 + 8, ~std::uint64_t{0}), "leaves the file");
    expect_archive_refused(with(end64 + 56 + 8, 0), "no zip64 end record at 0");
    EXPECT_THROW((void)read("four" + whole), InputError);  // every offset is four too small
}

TEST(TorchFile, SaysWhatKindOfFileItIsNot) {
    const TemporaryFolder folder;
    ZipWriter zip(folder / "none.pth");
    zip.add("x/readme", {});
    zip.commit();
    EXPECT_THAT([&] { (void)Checkpoint::open(folder / "none.pth"); },
                ThrowsMessage<InputError>(HasSubstr("a zip archive without data.pkl")));
    ZipWriter two(folder / "two.pth");
    two.add("x/data.pkl", {});
    two.add("y/data.pkl", {});
    two.commit();
    EXPECT_THAT([&] { (void)Checkpoint::open(folder / "two.pth"); },
                ThrowsMessage<InputError>(HasSubstr("two pickles")));
    write_atomically(folder / "old.pth", "\x80\x02\x8a\x0a");
    EXPECT_THAT([&] { (void)Checkpoint::open(folder / "old.pth"); },
                ThrowsMessage<InputError>(HasSubstr("torch's old format")));
}

}  // namespace
}  // namespace gallop
