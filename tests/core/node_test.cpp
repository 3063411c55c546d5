#include "core/node.hpp"

#include <functional>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/files.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

/// The text of the InputError that `act` throws, "" when it throws none.
std::string complaint(const std::function<void()>& act) {
    try {
        act();
    } catch (const InputError& error) {
        return error.what();
    }
    return "";
}

std::string yaml_complaint(const std::string& text) {
    return complaint([&] { parse_yaml(text, "f.yaml"); });
}

std::string json_complaint(const std::string& text) {
    return complaint([&] { parse_json(text, "f.json"); });
}

/// The places of all nodes, in their order.
std::string places(const Node& node) {
    std::string text = fmt::format("{}:{} ", node.where.line, node.where.column);
    if (node.kind == Node::Kind::sequence) {
        text = "[" + text;
        for (const Node& item : node.items) text += places(item);
        text += "] ";
    } else if (node.kind == Node::Kind::map) {
        text = "{" + text;
        for (const auto& [key, value] : node.entries) text += places(key) + places(value);
        text += "} ";
    }
    return text;
}

std::string repeat(std::string_view text, int times) {
    std::string all;
    for (int i = 0; i < times; ++i) all += text;
    return all;
}

TEST(Json, IsReadInEveryBuild) {
    const Node root = parse_json(R"({"a": [1, -2.50, true, null, "x\u00e9"], "b": {}})", "f.json");
    ASSERT_EQ(root.kind, Node::Kind::map);
    const Node* a = root.find("a");
    ASSERT_NE(a, nullptr);
    ASSERT_EQ(a->items.size(), 5U);
    EXPECT_EQ(a->items[0].scalar, "1");
    EXPECT_EQ(a->items[1].scalar, "-2.50");
    EXPECT_FALSE(a->items[1].quoted);
    EXPECT_EQ(a->items[2].scalar, "true");
    EXPECT_EQ(a->items[3].kind, Node::Kind::null);
    EXPECT_EQ(a->items[4].scalar, "xé");
    EXPECT_TRUE(a->items[4].quoted);
    EXPECT_EQ(root.find("b")->kind, Node::Kind::map);
    EXPECT_EQ(root.find("c"), nullptr);
}

TEST(Json, ReadsTheSameTreeAsYaml) {
    const std::string text =
        "{\"a\": [1,\n {\"b\": \"c \\\"d\"}],\n\"d\": null, \"e\": -2.5\n, \"f\":true}";
    for (const Node& root : {parse_yaml(text, "f"), parse_json(text, "f")}) {
        ASSERT_EQ(root.entries.size(), 4U);
        EXPECT_EQ(root.find("a")->items[0].scalar, "1");
        EXPECT_EQ(root.find("a")->items[1].find("b")->scalar, "c \"d");
        EXPECT_EQ(root.find("d")->kind, Node::Kind::null);
    }
    EXPECT_EQ(places(parse_json(text, "f")), places(parse_yaml(text, "f")));
    EXPECT_EQ(places(parse_json(text, "f")),
              "{1:1 1:2 [1:7 1:8 {2:2 2:3 2:8 } ] 3:1 3:1 3:12 3:17 4:3 4:7 } ");
}

TEST(Json, NamesThePlaceOfASyntaxError) {
    EXPECT_THAT(json_complaint("{\"a\": 1,\n \"b\": ]}"), StartsWith("f.json:2:7: not JSON"));
    EXPECT_THAT(json_complaint(""), HasSubstr("not JSON"));
    EXPECT_THAT(json_complaint("{} {}"), HasSubstr("not JSON"));
    EXPECT_THAT(json_complaint("[1e999]"), HasSubstr("not JSON"));
}

TEST(Json, KeepsYamlsBounds) {
    EXPECT_THAT(json_complaint(R"({"a": 1, "a": 2})"), HasSubstr("duplicate key \"a\""));
    EXPECT_EQ(json_complaint(repeat("[", 64) + repeat("]", 64)), "");
    EXPECT_THAT(json_complaint(repeat("[", 65) + repeat("]", 65)), HasSubstr("64 levels"));
    EXPECT_THAT(json_complaint("[" + repeat("1,", 1'000'000) + "1]"), HasSubstr("too many values"));
    EXPECT_THAT(json_complaint("\"a\\u0000b\""), HasSubstr("U+0000"));
}

TEST(Node, TextThatIsNotUtf8IsRefusedWithItsPlace) {
    for (const char* bad : {"\xff", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                            "\xe2\x82", "\x80"}) {
        EXPECT_THAT(yaml_complaint(std::string("\"a\n") + bad + "\""),
                    StartsWith("f.yaml:2:1: byte 0x"));
        EXPECT_THAT(json_complaint(std::string("\"a\n") + bad + "\""),
                    StartsWith("f.json:2:1: byte 0x"));
    }
    EXPECT_EQ(
        yaml_complaint("\"\xc2\x80 \xe0\xa0\x80 \xed\x9f\xbf \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf\""),
        "");
}

TEST(Node, ControlCharactersAreRefused) {
    EXPECT_EQ(json_complaint("[1,\x04 2]"), "f.json:1:4: control character U+0004");
    EXPECT_THAT(yaml_complaint(std::string("a\0b", 3)), HasSubstr("U+0000"));
}

TEST(Node, WhereSkipsWhatIsNotKnown) {
    EXPECT_EQ(to_string(Where{"a.yaml", 3, 7}), "a.yaml:3:7");
    EXPECT_EQ(to_string(Where{"a.yaml"}), "a.yaml");
}

TEST(Node, FilesAreReadAndMissingOnesNamed) {
    const test::TemporaryFolder folder;
    write_atomically(folder / "a.json", R"({"a": 1})");
    EXPECT_EQ(read_yaml(folder / "a.json").find("a")->scalar, "1");
    EXPECT_THAT(complaint([&] { read_yaml(folder / "b.json"); }), HasSubstr("b.json: cannot open"));
}

#ifndef GALLOP_ENGINE_ONLY

TEST(Yaml, KeepsPlacesOrderAndQuotes) {
    const Node root =
        parse_yaml("b: 1\na:\n  - x\n  - \"2\"\n  - |\n    two\n    lines\n", "f.yaml");
    ASSERT_EQ(root.entries.size(), 2U);
    EXPECT_EQ(root.entries[0].first.scalar, "b");
    EXPECT_EQ(to_string(root.entries[1].first.where), "f.yaml:2:1");
    const Node& list = root.entries[1].second;
    EXPECT_EQ(to_string(list.items[1].where), "f.yaml:4:5");
    EXPECT_FALSE(list.items[0].quoted);
    EXPECT_TRUE(list.items[1].quoted);
    EXPECT_EQ(list.items[2].scalar, "two\nlines\n");
    EXPECT_TRUE(list.items[2].quoted);
}

TEST(Yaml, EmptyTextIsNull) {
    for (const char* text : {"", "\n", "# only a remark", "---\n", "~", "...\n"})
        EXPECT_EQ(parse_yaml(text, "f").kind, Node::Kind::null) << text;
}

TEST(Yaml, SyntaxErrorsNameTheirPlaceFromOne) {
    EXPECT_THAT(yaml_complaint("a: 1\nb: [1, 2\nc: 3\n"), StartsWith("f.yaml:3:"));
    for (const char* open : {"a: \"open\n", "a: \"open", "a: 'open\n", "a: [1,\n", "a: {b: 1\n"})
        EXPECT_THAT(yaml_complaint(open), StartsWith("f.yaml:")) << open;
    EXPECT_THAT(yaml_complaint("a: \"open\n"), HasSubstr("ends too early"));
    EXPECT_THAT(yaml_complaint("a: 1\n\tb: 2\n"), StartsWith("f.yaml:2:"));
}

TEST(Yaml, DuplicateKeysAreRefused) {
    EXPECT_EQ(yaml_complaint("a: 1\nb: 2\n\"a\": 3\n"), "f.yaml:3:1: duplicate key \"a\"");
    EXPECT_EQ(yaml_complaint("- {a: 1}\n- {a: 1}\n"), "");
}

TEST(Yaml, DuplicateKeysAreToldToWhoAsksAndTheFirstHolds) {
    std::string told;
    const Node root = parse_yaml("a: 1\na: {b: 2, b: 3}\nc: 4\n\"c\\e\": 5\n\"c\\e\": 6\n",
                                 "f.yaml", [&](const Where& where, const std::string& text) {
                                     told += to_string(where) + ": " + text + "\n";
                                 });
    EXPECT_EQ(told,
              "f.yaml:2:1: duplicate key \"a\"\n"
              "f.yaml:2:11: duplicate key \"b\"\n"
              "f.yaml:5:1: duplicate key \"c\\u001b\"\n");
    ASSERT_EQ(root.entries.size(), 3U);
    EXPECT_EQ(root.find("a")->scalar, "1");
    EXPECT_EQ(root.find("c")->scalar, "4");
}

TEST(Yaml, ANullStandsWhereItsKeyDoes) {
    const Node root = parse_yaml("a:\n\n# more\nb: {c: , d: ~}\ne:\n", "f.yaml");
    EXPECT_EQ(to_string(root.find("a")->where), "f.yaml:1:1");
    EXPECT_EQ(to_string(root.find("b")->find("c")->where), "f.yaml:4:5");
    EXPECT_EQ(to_string(root.find("b")->find("d")->where), "f.yaml:4:10");
    EXPECT_EQ(to_string(root.find("e")->where), "f.yaml:5:1");
}

TEST(Yaml, KeysArePlainText) {
    EXPECT_THAT(yaml_complaint("[1, 2]: x\n"), HasSubstr("a key is not plain text"));
    EXPECT_THAT(yaml_complaint("~: x\n"), HasSubstr("a key is not plain text"));
}

TEST(Yaml, ASecondDocumentIsRefused) {
    EXPECT_THAT(yaml_complaint("a: 1\n---\nb: 2\n"), HasSubstr("f.yaml:2:1: a second document"));
}

TEST(Yaml, TagsCannotMakeAnythingButData) {
    EXPECT_THAT(yaml_complaint("a: !!python/object/apply:os.system [ls]\n"),
                HasSubstr("f.yaml:1:4: tag \"tag:yaml.org,2002:python/object/apply:os.system\""));
    EXPECT_THAT(yaml_complaint("a: !mine {b: 1}\n"), HasSubstr("tag"));
    EXPECT_THAT(yaml_complaint("a: !!int 3\n"), HasSubstr("tag"));
    EXPECT_TRUE(parse_yaml("a: !!str 3\n", "f").find("a")->quoted);
}

TEST(Yaml, AliasesAreExpanded) {
    const Node root = parse_yaml("a: &x {b: [1, 2]}\nc: *x\nd: [*x, *x]\n", "f");
    EXPECT_EQ(root.find("c")->find("b")->items[1].scalar, "2");
    EXPECT_EQ(root.find("d")->items[1].find("b")->items[0].scalar, "1");
}

TEST(Yaml, AliasBombsAreRefused) {
    std::string bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n";
    for (int i = 1; i < 12; ++i) {
        bomb += fmt::format("a{0}: &a{0} [{1}1]\n", i, repeat(fmt::format("*a{},", i - 1), 10));
    }
    EXPECT_THAT(yaml_complaint(bomb), HasSubstr("too many values (at most 1000000"));
}

TEST(Yaml, AnAliasInsideItselfIsRefused) {
    EXPECT_THAT(yaml_complaint("a: &x [1, *x]\n"), HasSubstr("f.yaml:1:11: an alias inside"));
    EXPECT_THAT(yaml_complaint("a: *nobody\n"), StartsWith("f.yaml:1:"));
}

TEST(Yaml, DepthIsBoundedThroughAliasesToo) {
    EXPECT_EQ(yaml_complaint(repeat("[", 64) + repeat("]", 64)), "");
    EXPECT_THAT(yaml_complaint(repeat("[", 65) + repeat("]", 65)), HasSubstr("64 levels"));
    const std::string deep = repeat("[", 40) + repeat("]", 40);
    EXPECT_THAT(
        yaml_complaint("a: &x " + deep + "\nb: " + repeat("[", 30) + "*x" + repeat("]", 30)),
        HasSubstr("64 levels"));
}

#endif

}  // namespace
}  // namespace gallop
