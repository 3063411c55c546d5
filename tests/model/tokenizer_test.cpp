#include "model/tokenizer.hpp"

#include <filesystem>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/files.hpp"
#include "core/node.hpp"
#include "model/piece_table.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::ThrowsMessage;

const std::filesystem::path golden = std::filesystem::path(GALLOP_GOLDEN) / "tokenizer";

std::string tiny_model() {
    return read_text(std::filesystem::path(GALLOP_ROOT) / "configs/models/tiny-tokenizer.model");
}

Tokenizer tiny(const TokenizerConfig& config = {}) {
    return Tokenizer(tiny_model(), config, "tiny-tokenizer.model");
}

std::vector<std::int64_t> numbers(const Node& list) {
    std::vector<std::int64_t> values;
    for (const Node& item : list.items) values.push_back(std::stoll(item.scalar));
    return values;
}

template <class T>
std::vector<std::int64_t> wide(const std::vector<T>& values) {
    return {values.begin(), values.end()};
}

Node read_cases(const std::filesystem::path& path) {
    return parse_json(read_text(path), path.string());
}

PieceTable tiny_table() { return read_piece_table(tiny_model(), "t"); }

TEST(Tokenizer, CutsTextAsTheSentencePieceWheelDoes) {
    const Tokenizer tokenizer = tiny();
    const Node root = read_cases(golden / "cases.json");
    EXPECT_EQ(std::to_string(tokenizer.size()), root.find("pieces")->scalar);
    ASSERT_GE(root.find("cases")->items.size(), 100U);
    for (const Node& one : root.find("cases")->items) {
        const Tokens tokens = tokenizer.encode(one.find("text")->scalar);
        SCOPED_TRACE(one.find("text")->scalar);
        EXPECT_EQ(wide(tokens.ids), numbers(*one.find("ids")));
        EXPECT_EQ(wide(tokens.begin), numbers(*one.find("begin")));
        EXPECT_EQ(wide(tokens.end), numbers(*one.find("end")));
    }
}

TEST(Tokenizer, MatchesAddedTokensAndPutsBosAndEosAsTransformersDoes) {
    const auto file = golden / "tokenizer_config.json";
    const Tokenizer tokenizer = tiny(read_tokenizer_config(read_text(file), file.string()));
    EXPECT_EQ(tokenizer.size(), 1402);
    const Node root = read_cases(golden / "added_cases.json");
    for (const Node& one : root.find("cases")->items) {
        const Tokens tokens = tokenizer.encode(one.find("text")->scalar);
        EXPECT_EQ(wide(tokens.ids), numbers(*one.find("ids"))) << one.find("text")->scalar;
    }
}

TEST(Tokenizer, CoversEveryByteOfTheTextOnce) {
    const std::string text = "  Ünder <b>\xf0\x9f\x98\x80</b>\n\n\n<end_of_turn>\t\tx";
    const Tokens tokens = tiny().encode(text);
    std::size_t at = 0;
    for (std::size_t i = 0; i < tokens.ids.size(); ++i) {
        EXPECT_EQ(tokens.begin[i], at);
        at = tokens.end[i];
    }
    EXPECT_EQ(at, text.size());
}

TEST(Tokenizer, AddsNeitherBosNorEosUnlessToldTo) {
    EXPECT_THAT(tiny().encode("").ids, IsEmpty());
    EXPECT_THAT(tiny({.add_bos = true}).encode("").ids, ElementsAre(2));
    EXPECT_THAT(tiny({.add_eos = true}).encode("").ids, ElementsAre(1));
    EXPECT_THAT(tiny({.add_bos = true, .bos = "<mask>"}).encode("").ids, ElementsAre(4));
    EXPECT_THAT([] { tiny({.add_bos = true, .bos = "<nobody>"}); },
                ThrowsMessage<InputError>(HasSubstr("\"<nobody>\" is no piece")));
}

TEST(Tokenizer, TakesAZeroByteForACharacter) {
    EXPECT_THAT(tiny().encode(std::string_view("\0", 1)).ids, ElementsAre(156));  // <0x00>
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8OrTooLong) {
    const Tokenizer tokenizer = tiny();
    EXPECT_THAT([&] { tokenizer.encode("ab\xff"); },
                ThrowsMessage<InputError>(HasSubstr("byte 2 of the text is not UTF-8")));
    EXPECT_THAT([&] { tokenizer.encode(std::string((1U << 20) + 1, 'a')); },
                ThrowsMessage<InputError>(HasSubstr("at most 1048576")));
}

TEST(Tokenizer, OpensAFolderWithoutConfig) {
    const test::TemporaryFolder folder;
    write_atomically(folder / "tokenizer.model", tiny_model());
    EXPECT_THAT(Tokenizer::open(folder.path()).encode("\n\n").ids, ElementsAre(18));
}

TEST(Tokenizer, ReadsTheConfigBesideTheModel) {
    const test::TemporaryFolder folder;
    write_atomically(folder / "tokenizer.model", tiny_model());
    write_atomically(
        folder / "tokenizer_config.json",
        R"({"add_bos_token": true, "bos_token": {"content": "<eos>"}, "chat_template": "x"})");
    EXPECT_THAT(Tokenizer::open(folder.path()).encode("\n").ids, ElementsAre(1, 17));
}

TEST(Tokenizer, NamesAConfigThatCannotBeReached) {
    const test::TemporaryFolder folder;
    write_atomically(folder / "tokenizer.model", tiny_model());
    const auto config = folder / "tokenizer_config.json";
    std::filesystem::create_symlink(config, config);
    EXPECT_THAT([&] { Tokenizer::open(folder.path()); },
                ThrowsMessage<InputError>(HasSubstr(config.string() + ": cannot be read")));
}

TEST(Tokenizer, TakesAddedTokensFromTokenizerJsonWhenTheConfigHasNone) {
    const test::TemporaryFolder folder;
    write_atomically(folder / "tokenizer.model", tiny_model());
    write_atomically(
        folder / "tokenizer.json",
        R"({"version": "1.0", "added_tokens": [{"id": 7000, "content": "<x>", "special": true}],
                     "model": {"vocab": {"a": 1}, "merges": [["a", "b"]]}})");
    const Tokenizer tokenizer = Tokenizer::open(folder.path());
    EXPECT_EQ(tokenizer.size(), 7001);
    EXPECT_THAT(tokenizer.encode("<x>\n").ids, ElementsAre(7000, 17));
    write_atomically(folder / "tokenizer.json", R"({"added_tokens": [{"content": "<x>"}]})");
    EXPECT_THAT([&] { Tokenizer::open(folder.path()); },
                ThrowsMessage<InputError>(HasSubstr("id")));
    write_atomically(folder / "tokenizer.json", "{");
    EXPECT_THROW(Tokenizer::open(folder.path()), InputError);
}

TEST(Tokenizer, NamesTheMissingModel) {
    const test::TemporaryFolder folder;
    EXPECT_THAT([&] { Tokenizer::open(folder.path()); },
                ThrowsMessage<InputError>(HasSubstr("tokenizer.model")));
}

TEST(TokenizerConfig, RefusesWhatItCannotHonour) {
    for (const char* text :
         {"[]", "{\"add_bos_token\": 3}", "{\"added_tokens_decoder\": []}",
          "{\"added_tokens_decoder\": {\"x\": {\"content\": \"a\"}}}",
          "{\"added_tokens_decoder\": {\"-1\": {\"content\": \"a\"}}}",
          "{\"added_tokens_decoder\": {\"99999999999\": {\"content\": \"a\"}}}",
          "{\"added_tokens_decoder\": {\"1\": {\"content\": \"\"}}}",
          "{\"added_tokens_decoder\": {\"1\": {}}}",
          "{\"added_tokens_decoder\": {\"1\": {\"content\": \"a\", \"lstrip\": true}}}"})
        EXPECT_THROW(read_tokenizer_config(text, "tokenizer_config.json"), InputError) << text;
}

TEST(PieceTable, SurvivesWritingAndReading) {
    const PieceTable table = tiny_table();
    const PieceTable again = read_piece_table(serialize(table), "t");
    ASSERT_EQ(again.pieces.size(), table.pieces.size());
    for (std::size_t i = 0; i < table.pieces.size(); ++i) {
        EXPECT_EQ(again.pieces[i].text, table.pieces[i].text);
        EXPECT_EQ(again.pieces[i].score, table.pieces[i].score);
        EXPECT_EQ(again.pieces[i].type, table.pieces[i].type);
    }
    EXPECT_TRUE(again.byte_fallback);
    EXPECT_EQ(again.bos, "<bos>");
}

TEST(PieceTable, RefusesATruncatedModelAtAnyLength) {
    const std::string model = tiny_model();
    for (std::size_t bytes = 0; bytes < model.size(); bytes += 61)
        EXPECT_THROW(read_piece_table(model.substr(0, bytes), "t"), InputError) << bytes;
}

TEST(PieceTable, RefusesModelsThatAreNotGemmaLike) {
    const auto with =
        [](std::string_view field) {  // protobuf: a later field adds to an earlier one
            return [text = tiny_model() + std::string(field)] { read_piece_table(text, "t"); };
        };
    EXPECT_THAT(with("\x12\x02\x18\x01"), ThrowsMessage<InputError>(HasSubstr("type 1")));
    EXPECT_THAT(with("\x12\x03\xc0\x01\x01"), ThrowsMessage<InputError>(HasSubstr("suffix")));
    EXPECT_THAT(with("\x1a\x02\x18\x01"), ThrowsMessage<InputError>(HasSubstr("add_dummy_prefix")));
    EXPECT_THAT(with("\x1a\x02 \x01"), ThrowsMessage<InputError>(HasSubstr("repeated spaces")));
    EXPECT_THAT(with(std::string_view("\x1a\x02(\0", 4)),
                ThrowsMessage<InputError>(HasSubstr("escape_whitespaces")));
    EXPECT_THAT(with("\x1a\x03\x12\x01z"),
                ThrowsMessage<InputError>(HasSubstr("rule \"identity\"")));
}

TEST(PieceTable, RefusesBrokenProtobuf) {
    const auto from = [](std::string_view bytes) {
        return [bytes] { read_piece_table(bytes, "t"); };
    };
    EXPECT_THAT(from("\x0a\xff\xff\xff\xff\x0f"), ThrowsMessage<InputError>(HasSubstr("middle")));
    EXPECT_THAT(from("\x0b"), ThrowsMessage<InputError>(HasSubstr("wire type")));
    EXPECT_THAT(from(std::string_view("\0\0", 2)),
                ThrowsMessage<InputError>(HasSubstr("out of range")));
    EXPECT_THAT(from("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
                ThrowsMessage<InputError>(HasSubstr("ten bytes")));
    EXPECT_THAT(from("\x08\x01"), ThrowsMessage<InputError>(HasSubstr("wrong type")));
    EXPECT_THAT(from("\x0a\x02\x18\x07"), ThrowsMessage<InputError>(HasSubstr("piece type 7")));
    EXPECT_THAT(from("\x12\x02\x18\x02"), ThrowsMessage<InputError>(HasSubstr("add_dummy_prefix")));
}

TEST(PieceTable, RefusesPiecesThatCannotBe) {
    const auto with = [](auto change) {
        PieceTable table = tiny_table();
        change(table);
        return [text = serialize(table)] { read_piece_table(text, "t"); };
    };
    EXPECT_THAT(with([](PieceTable& t) { t.pieces.clear(); }),
                ThrowsMessage<InputError>(HasSubstr("holds no pieces")));
    EXPECT_THAT(with([](PieceTable& t) { t.pieces[700].text.clear(); }),
                ThrowsMessage<InputError>(HasSubstr("piece 700 is empty")));
    EXPECT_THAT(with([](PieceTable& t) { t.pieces[700].text.assign(513, 'x'); }),
                ThrowsMessage<InputError>(HasSubstr("513 bytes (at most 512)")));
    EXPECT_THAT(with([](PieceTable& t) { t.pieces[700].text = "\xff"; }),
                ThrowsMessage<InputError>(HasSubstr("not UTF-8")));
    EXPECT_THAT(with([](PieceTable& t) { t.pieces[700].text = std::string("a\0b", 3); }),
                ThrowsMessage<InputError>(HasSubstr("NUL")));
    EXPECT_THAT(with([](PieceTable& t) { t.pieces[700].text = "\n\n"; }),
                ThrowsMessage<InputError>(HasSubstr("two ids, 18 and 700")));
    EXPECT_THAT(
        with([](PieceTable& t) { t.pieces[700].score = std::numeric_limits<float>::quiet_NaN(); }),
        ThrowsMessage<InputError>(HasSubstr("score of piece 700")));
    EXPECT_THAT(with([](PieceTable& t) { t.pieces[700].type = Piece::Type::byte; }),
                ThrowsMessage<InputError>(HasSubstr("byte piece 700")));
    EXPECT_THAT(with([](PieceTable& t) { t.pieces[200].type = Piece::Type::normal; }),
                ThrowsMessage<InputError>(HasSubstr("255 byte pieces")));
    EXPECT_THAT(with([](PieceTable& t) { t.byte_fallback = false; }),
                ThrowsMessage<InputError>(HasSubstr("256 byte pieces (needs 0)")));
    EXPECT_THAT(with([](PieceTable& t) { t.pieces[3].type = Piece::Type::normal; }),
                ThrowsMessage<InputError>(HasSubstr("0 unknown pieces")));
    EXPECT_THAT(with([](PieceTable& t) { t.unknown = "<huh>"; }),
                ThrowsMessage<InputError>(HasSubstr("<huh>")));
}

}  // namespace
}  // namespace gallop
