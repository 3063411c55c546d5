#include "model/safetensors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/files.hpp"
#include "support/memory_source.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using test::MemorySource;
using test::TemporaryFolder;
using testing::HasSubstr;
using testing::Pair;
using testing::ThrowsMessage;
using testing::UnorderedElementsAre;

std::string with_length(std::string_view json, std::uint64_t length) {
    std::string bytes(reinterpret_cast<const char*>(&length), sizeof length);
    return bytes.append(json);
}

// A file of that header and as many zero bytes of data.
std::string file_of(std::string_view json, std::size_t data) {
    return with_length(json, json.size()) + std::string(data, '\0');
}

SafetensorsHeader parse(std::string_view bytes) {
    MemorySource source(bytes);
    return read_safetensors_header(source, "file");
}

void expect_refused(const std::string& bytes, const std::string& why) {
    EXPECT_THAT([&] { (void)parse(bytes); }, ThrowsMessage<InputError>(HasSubstr(why)))
        << bytes.substr(0, 200);
}

// One tensor "a".
std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"("a":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets +
           "}";
}

TEST(Safetensors, ReadsNamesTypesShapesAndPlaces) {
    const std::string json =
        R"({"__metadata__":{"k":"v"},"b":{"dtype":"BOOL","shape":[3],"data_offsets":[8,11]},)"
        R"("a":{"shape":[2,1],"data_offsets":[0,8],"dtype":"F32"},)"
        R"("none":{"dtype":"F64","shape":[0,7],"data_offsets":[8,8]}}  )";
    const SafetensorsHeader header = parse(file_of(json, 11));
    ASSERT_EQ(header.tensors.size(), 3U);
    EXPECT_EQ(header.tensors[0].name, "a");
    EXPECT_EQ(header.tensors[0].type, StoredType::f32);
    EXPECT_EQ(header.tensors[0].shape, (Shape{2, 1}));
    EXPECT_EQ(header.tensors[0].offset, 8 + json.size());
    EXPECT_EQ(header.tensors[0].bytes, 8U);
    EXPECT_EQ(header.tensors[1].name, "none");
    EXPECT_EQ(header.tensors[1].bytes, 0U);
    EXPECT_EQ(header.tensors[2].type, StoredType::boolean);
    EXPECT_EQ(header.metadata.at("k"), "v");
}

TEST(Safetensors, RefusesEveryTruncation) {
    const std::string whole = file_of("{" + tensor("F32", "[2]", "[0,8]") + "}", 8);
    EXPECT_EQ(parse(whole).tensors.size(), 1U);
    for (std::size_t size = 0; size < whole.size(); ++size)
        EXPECT_THROW((void)parse(whole.substr(0, size)), InputError) << size;
}

TEST(Safetensors, RefusesAHeaderLargerThanTheFile) {
    expect_refused(with_length("{}", 3), "a header of 3 bytes in a file of 10");
    expect_refused(with_length("{}", max_safetensors_header),
                   "a header of 100000000 bytes in a file");
    expect_refused(with_length("{}", max_safetensors_header + 1), "at most 100000000");
    expect_refused(with_length("{}", ~std::uint64_t{0}), "at most 100000000");
}

TEST(Safetensors, RefusesTensorsThatOverlapOrLeaveGaps) {
    const std::string second = R"(,"b":{"dtype":"U8","shape":[4],"data_offsets":)";
    const std::string first = "{" + tensor("U8", "[4]", "[0,4]");
    expect_refused(file_of(first + second + "[2,6]}}", 6), "overlap");
    expect_refused(file_of(first + second + "[0,4]}}", 4), "overlap");
    expect_refused(file_of(first + second + "[5,9]}}", 9), "gap");
    expect_refused(file_of(first + "}", 5), "1 bytes behind the last tensor");
    expect_refused(file_of(first + "}", 3), "truncated");
    EXPECT_EQ(parse(file_of(first + second + "[4,8]}}", 8)).tensors.size(), 2U);
}

TEST(Safetensors, RefusesOverflowingShapesAndOffsets) {
    const auto refuse = [](const std::string& dtype, const std::string& shape,
                           const std::string& offsets, const std::string& why) {
        expect_refused(file_of("{" + tensor(dtype, shape, offsets) + "}", 8), why);
    };
    refuse("F32", "[4294967296,4294967296]", "[0,0]", "too many elements");
    refuse("F32", "[2147483648,2147483648,4]", "[0,8]", "too many elements");
    refuse("F32", "[18446744073709551615]", "[0,8]", "too many elements");
    refuse("U8", "[0,9223372036854775808]", "[0,0]", "too many elements");
    refuse("F32", "[2]", "[18446744073709551608,18446744073709551616]", "unexpected");
    refuse("F32", "[2]", "[18446744073709551600,18446744073709551608]", "too large");
    refuse("F32", "[2]", "[8,0]", "do not hold F32 [2] (8 bytes)");
    refuse("F32", "[2]", "[0,4]", "do not hold");
    refuse("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]", "more than 8 extents");
}

TEST(Safetensors, RefusesNamesThatOccurTwice) {
    const std::string one = tensor("U8", "[4]", "[0,4]");
    const std::string other = tensor("U8", "[4]", "[4,8]");
    expect_refused(file_of("{" + one + "," + other + "}", 8), "names 'a' twice");
    expect_refused(file_of(R"({"__metadata__":{"k":"1","k":"2"}})", 0), "names 'k' twice");
}

TEST(Safetensors, RefusesWhatIsNotAHeader) {
    expect_refused(file_of("", 0), "unexpected");
    expect_refused(file_of("[]", 0), "unexpected an array at the start");
    expect_refused(file_of("{", 0), "unexpected");
    expect_refused(file_of("{} x", 0), "unexpected");
    expect_refused(file_of(R"({"a":5})", 0), "unexpected the number 5 at 'a'");
    expect_refused(file_of(R"({"a":{}})", 0), "a: needs dtype, shape and two data_offsets");
    expect_refused(file_of("{" + tensor("F128", "[1]", "[0,16]") + "}", 16),
                   "unknown dtype 'F128'");
    expect_refused(file_of("{" + tensor("F32", "[-1]", "[0,4]") + "}", 4), "the number -1");
    expect_refused(file_of("{" + tensor("F32", "[1.0]", "[0,4]") + "}", 4), "the number 1.0");
    expect_refused(file_of("{" + tensor("F32", "[[1]]", "[0,4]") + "}", 4), "unexpected an array");
    expect_refused(file_of("{" + tensor("F32", "[1]", "[0,4,4]") + "}", 4), "the number 4");
    expect_refused(file_of(R"({"__metadata__":{"k":{}}})", 0), "unexpected an object");
    expect_refused(file_of("{\"\xff\":{}}", 0), "unexpected");
    // Nesting costs neither stack nor memory.
    expect_refused(file_of(std::string(1U << 20, '['), 0), "unexpected an array");
    expect_refused(file_of(R"({"a":)" + std::string(1U << 20, '['), 0), "unexpected an array");
}

TEST(Safetensors, WritesWhatItReads) {
    const TemporaryFolder folder;
    const std::array values{1.0F, -2.0F, 3.5F};
    const std::array codes{f8_e4m3{0x38}};
    const Tensor floats = Tensor::of<float>({3, 1}, values);
    const Tensor bytes = Tensor::of<f8_e4m3>({1}, codes);
    const std::vector<NamedTensor> tensors{{"odd \"name\"\n", bytes}, {"floats", floats}};
    write_safetensors(folder / "out.safetensors", tensors, {{"k", "v"}});
    const auto checkpoint = Checkpoint::open(folder / "out.safetensors");
    EXPECT_EQ(checkpoint.metadata().at("k"), "v");
    EXPECT_THAT(checkpoint.read("floats").span<float>(), testing::ElementsAreArray(values));
    EXPECT_EQ(checkpoint.read("odd \"name\"\n").data<f8_e4m3>()[0].bits, 0x38);
    // The data begin at a multiple of eight.
    EXPECT_EQ(checkpoint.find("odd \"name\"\n")->offset % 8, 0U);
}

TEST(Safetensors, WriterHoldsToItsTable) {
    const TemporaryFolder folder;
    const std::vector<SafetensorsWriter::Row> table{{"a", DType::u8, {4}}};
    const std::vector<std::byte> five(5);
    {
        SafetensorsWriter writer(folder / "x", table);
        EXPECT_THROW(writer.append(five), Error);
        writer.append(std::span(five).first(3));
        EXPECT_THROW(writer.commit(), Error);
    }
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
    const std::vector<SafetensorsWriter::Row> twice{{"a", DType::u8, {4}}, {"a", DType::u8, {4}}};
    EXPECT_THROW(SafetensorsWriter(folder / "x", twice), Error);
}

TEST(SafetensorsIndex, GivesTheShardOfEachTensor) {
    EXPECT_THAT(
        parse_safetensors_index(
            R"({"metadata":{"total_size":3,"x":[1,null]},"weight_map":{"a":"s1","b":"s2"}})", "i"),
        UnorderedElementsAre(Pair("a", "s1"), Pair("b", "s2")));
}

TEST(SafetensorsIndex, RefusesShardsOutsideItsFolder) {
    for (const char* shard : {"../x", "/etc/passwd", "a/b", "", ".", "..", "a\\u0000b"})
        EXPECT_THAT(
            [&] {
                (void)parse_safetensors_index(
                    std::string(R"({"weight_map":{"t":")") + shard + "\"}}", "i");
            },
            ThrowsMessage<InputError>(HasSubstr("a shard that is not a plain file name")))
            << shard;
}

TEST(SafetensorsIndex, RefusesWhatIsNotAnIndex) {
    for (const char* json :
         {"", "{}", "[]", "3", R"({"weight_map":3})", R"({"weight_map":{}})",
          R"({"weight_map":{"a":3}})", R"({"weight_map":{"a":{}}})",
          R"({"weight_map":{"a":"s","a":"s"}})", R"({"other":{"weight_map":{"a":"s"}}})"})
        EXPECT_THROW((void)parse_safetensors_index(json, "i"), InputError) << json;
}

TEST(SafetensorsIndex, ListsShardsAndTensorsThatAreNotThere) {
    const TemporaryFolder folder;
    const auto index = folder / "model.safetensors.index.json";
    write_atomically(index, R"({"weight_map":{"a":"one","b":"two","c":"three"}})");
    EXPECT_THAT([&] { (void)Checkpoint::open(folder.path()); },
                ThrowsMessage<InputError>(testing::AllOf(HasSubstr("\n  one"), HasSubstr("\n  two"),
                                                         HasSubstr("\n  three"))));
    write_atomically(folder / "one", file_of("{" + tensor("U8", "[1]", "[0,1]") + "}", 1));
    write_atomically(index, R"({"weight_map":{"a":"one","b":"one"}})");
    EXPECT_THAT([&] { (void)Checkpoint::open(folder.path()); },
                ThrowsMessage<InputError>(HasSubstr("not where it says:\n  b in one")));
    write_atomically(folder / "two", file_of("{" + tensor("U8", "[1]", "[0,1]") + "}", 1));
    write_atomically(index, R"({"weight_map":{"a":"one","b":"two"}})");
    EXPECT_THROW((void)Checkpoint::open(folder.path()), InputError);
    std::filesystem::copy(folder / "one", folder / "two",
                          std::filesystem::copy_options::overwrite_existing);
    write_atomically(index, R"({"weight_map":{"a":"one"},"metadata":{}})");
    EXPECT_EQ(Checkpoint::open(folder.path()).tensors().size(), 1U);
}

}  // namespace
}  // namespace gallop
