#include "core/reader.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"

namespace gallop {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// JSON is YAML, so most of these run in every build; places need YAML.
Node tree(const std::string& text) { return parse_yaml(text, "f"); }

template <class Read>
std::vector<std::string> problems(const std::string& text, Read&& read) {
    const Node root = tree(text);
    Reader in(root);
    read(in);
    return in.problems();
}

std::string number_problem(const std::string& value) {
    const auto lines = problems("{\"n\": " + value + "}", [](Reader& in) {
        EXPECT_EQ(in.get("n", 7, Range{1, 100}), 7);
    });
    return lines.size() == 1 ? lines[0].substr(lines[0].find("n is")) : "";
}

TEST(Reader, ReadsEveryKindOfValue) {
    const Node root =
        tree(R"({"flag": true, "int": -3, "real": 2.5e-1, "text": "a b", "one": "fast",
        "ints": [1, 2], "reals": [1, 0.5], "flags": [true, false], "texts": ["x", "y"]})");
    Reader in(root);
    EXPECT_TRUE(in.get("flag", false));
    EXPECT_EQ(in.get("int", 0, Range{-5, 5}), -3);
    EXPECT_EQ(in.get("real", 0.0, Range{0.0, 1.0}), 0.25);
    EXPECT_EQ(in.get("text", ""), "a b");
    EXPECT_EQ(in.choice("one", "slow", {"slow", "fast"}), "fast");
    EXPECT_THAT(in.get_list("ints", {}, Range<std::int64_t>{0, 9}), ElementsAre(1, 2));
    EXPECT_THAT(in.get_list("reals", {}, Range{0.0, 9.0}), ElementsAre(1.0, 0.5));
    EXPECT_THAT(in.get_list("flags", std::vector<bool>{}), ElementsAre(true, false));
    EXPECT_THAT(in.get_list("texts", std::vector<std::string>{}), ElementsAre("x", "y"));
    EXPECT_NO_THROW(in.finish());
}

TEST(Reader, AbsentKeysGiveTheFallback) {
    const Node root = tree("{}");
    Reader in(root);
    EXPECT_EQ(in.get("n", 7, Range{1, 100}), 7);
    EXPECT_EQ(in.get("s", "x"), "x");
    EXPECT_EQ(in.choice("c", "slow", {"slow", "fast"}), "slow");
    EXPECT_THAT(in.get_list("l", std::vector<std::string>{"z"}), ElementsAre("z"));
    EXPECT_FALSE(in.has("n"));
    EXPECT_THAT(in.problems(), IsEmpty());
}

TEST(Reader, NumbersAreStrict) {
    const std::string need = " (must be a whole number from 1 to 100)";
    EXPECT_EQ(number_problem("0"), "n is 0" + need);
    EXPECT_EQ(number_problem("101"), "n is 101" + need);
    EXPECT_EQ(number_problem("1.0"), "n is 1.0" + need);
    EXPECT_EQ(number_problem("1e1"), "n is 1e1" + need);
    EXPECT_EQ(number_problem("true"), "n is true" + need);
    EXPECT_EQ(number_problem("\"8\""), "n is \"8\" in quotes" + need);
    EXPECT_EQ(number_problem("99999999999999999999"), "n is 99999999999999999999" + need);
    EXPECT_EQ(number_problem("null"), "n is empty" + need);
    EXPECT_EQ(number_problem("[1]"), "n is a list" + need);
    EXPECT_EQ(number_problem("{}"), "n is a map" + need);
}

TEST(Reader, ExtremesOf64BitsAreRead) {
    const Node root = tree(R"({"a": 9223372036854775807, "b": -9223372036854775808})");
    Reader in(root);
    const Range<std::int64_t> any{INT64_MIN, INT64_MAX};
    EXPECT_EQ(in.get("a", std::int64_t{0}, any), INT64_MAX);
    EXPECT_EQ(in.get("b", std::int64_t{0}, any), INT64_MIN);
    EXPECT_THAT(in.problems(), IsEmpty());
}

TEST(Reader, TextMayLookLikeANumber) {
    const Node root = tree(R"({"a": 42, "b": true})");
    Reader in(root);
    EXPECT_EQ(in.get("a", ""), "42");
    EXPECT_EQ(in.get("b", ""), "true");
}

TEST(Reader, UnknownKeysAreProblemsWithTheNearestName) {
    EXPECT_THAT(problems(R"({"stpes": 3})",
                         [](Reader& in) {
                             in.get("steps", 1, Range{1, 9});
                         }),
                ElementsAre(testing::HasSubstr("unknown key \"stpes\"; did you mean \"steps\"?")));
    EXPECT_THAT(
        problems(R"({"other": 3})",
                 [](Reader& in) {
                     in.get("steps", 1, Range{1, 9});
                     in.get("shift", 1.0, Range{0.0, 9.0});
                 }),
        ElementsAre(testing::HasSubstr("unknown key \"other\" (known here: steps, shift)")));
    EXPECT_THAT(problems(R"({"other": 3})", [](Reader& in) { in.ignore_unknown(); }), IsEmpty());
}

TEST(Reader, ChoicesNameTheNearest) {
    EXPECT_THAT(
        problems(R"({"codec": "h246"})",
                 [](Reader& in) {
                     in.choice("codec", "h264", {"h264", "hevc"});
                 }),
        ElementsAre(testing::HasSubstr(
            "codec is \"h246\" in quotes (must be one of: h264, hevc); did you mean h264?")));
}

TEST(Reader, RequiredKeysAreMissed) {
    EXPECT_THAT(problems("{}", [](Reader& in) { in.require("model"); }),
                ElementsAre("f" + std::string(to_string(tree("{}").where).substr(1)) +
                            ": \"model\" is missing (it is required)"));
    EXPECT_THAT(problems(R"({"model": 1})", [](Reader& in) { in.require("model"); }), IsEmpty());
}

TEST(Reader, ProblemsOfChildrenReachTheRoot) {
    const Node root = tree(R"({"a": {"b": {"n": "x"}}, "l": [{"m": -1}, 5]})");
    Reader in(root);
    in.child("a").child("b").get("n", 1, Range{1, 9});
    for (Reader& one : in.children("l")) one.get("m", 1, Range{1, 9});
    EXPECT_EQ(in.problems().size(), 3U);
    EXPECT_THROW(in.finish(), InputError);
}

TEST(Reader, AbsentAndEmptyChildrenAreEmptyMaps) {
    const Node root = tree(R"({"b": null, "d": null})");
    Reader in(root);
    EXPECT_EQ(in.child("a").get("n", 7, Range{1, 9}), 7);
    EXPECT_EQ(in.child("b").get("n", 7, Range{1, 9}), 7);
    EXPECT_THAT(in.children("c"), IsEmpty());
    EXPECT_THAT(in.children("d"), IsEmpty());
    EXPECT_THAT(in.problems(), IsEmpty());
}

TEST(Reader, ARootThatIsNotAMapIsAProblem) {
    EXPECT_THAT(problems("[1]",
                         [](Reader& in) {
                             in.get("a", 1, Range{1, 9});
                         }),
                ElementsAre(testing::HasSubstr("a list (must be a map)")));
}

TEST(Reader, ListsNameTheEntry) {
    EXPECT_THAT(
        problems(R"({"l": [1, "x", 30]})",
                 [](Reader& in) {
                     EXPECT_THAT(in.get_list("l", {4}, Range<std::int64_t>{0, 9}), ElementsAre(4));
                 }),
        testing::UnorderedElementsAre(testing::HasSubstr("l[1] is \"x\" in quotes"),
                                      testing::HasSubstr("l[2] is 30 (must be")));
    EXPECT_THAT(
        problems(R"({"l": 3})", [](Reader& in) { in.get_list("l", std::vector<std::string>{}); }),
        ElementsAre(testing::HasSubstr("l is 3 (must be a list)")));
}

TEST(Reader, AKeyReadTwiceHasOneProblem) {
    EXPECT_EQ(problems(R"({"n": "x"})",
                       [](Reader& in) {
                           in.get("n", 1, Range{1, 9});
                           in.get("n", 1, Range{1, 9});
                       })
                  .size(),
              1U);
}

TEST(Reader, LongValuesAreCutBetweenCharacters) {
    std::string value;
    for (int i = 0; i < 50; ++i) value += "é";
    EXPECT_THAT(problems("{\"n\": \"x" + value + "\"}",
                         [](Reader& in) {
                             in.get("n", 1, Range{1, 9});
                         }),
                ElementsAre(testing::HasSubstr("\"x" + value.substr(0, 58) + "…\" in quotes")));
}

#ifndef GALLOP_ENGINE_ONLY

TEST(Reader, FinishThrowsAllProblemsAtOnceInOrder) {
    const Node root = parse_yaml(
        "steps: 012\nname: [a]\nwidth: 1_000\nscale: .inf\nflag: yes\nsteps2: 0x10\n", "m.yaml");
    Reader in(root);
    in.get("flag", false);
    in.get("scale", 1.0, Range{0.0, 1e9});
    in.get("name", "");
    in.get("steps", 8, Range{1, 1000});
    in.get("width", 32, Range{32, 4096});
    try {
        in.finish();
        FAIL();
    } catch (const InputError& error) {
        EXPECT_STREQ(error.what(),
                     "m.yaml:1:8: steps is 012 (must be a whole number from 1 to 1000)\n"
                     "m.yaml:2:7: name is a list (must be text)\n"
                     "m.yaml:3:8: width is 1_000 (must be a whole number from 32 to 4096)\n"
                     "m.yaml:4:8: scale is .inf (must be a number from 0 to 1000000000)\n"
                     "m.yaml:5:7: flag is yes (must be true or false)\n"
                     "m.yaml:6:1: unknown key \"steps2\"; did you mean \"steps\"?");
    }
}

TEST(Reader, RealNumbersAreStrict) {
    for (const char* good : {"1", "-1.5", "+0.25", ".5", "1e-3", "0"})
        EXPECT_THAT(problems(std::string("n: ") + good,
                             [](Reader& in) {
                                 in.get("n", 9.0, Range{-2.0, 2.0});
                             }),
                    IsEmpty())
            << good;
    for (const char* bad : {"nan", ".nan", "inf", "-.inf", "1e999", "0x1p3", "1,5", "1.5x", "01.5",
                            "+-1", "'1'", "."})
        EXPECT_EQ(problems(std::string("n: ") + bad,
                           [](Reader& in) {
                               EXPECT_EQ(in.get("n", 9.0, Range{-2.0, 2.0}), 9.0);
                           })
                      .size(),
                  1U)
            << bad;
}

TEST(Reader, ProblemsOfTheCallerStandAtTheValue) {
    const Node root = parse_yaml("a: 1\nb: {c: 2}\n", "m.yaml");
    Reader in(root);
    in.node("a");
    Reader b = in.child("b");
    b.node("c");
    b.problem("c", "c and a differ");
    b.problem("", "b is odd");
    EXPECT_EQ(to_string(in.where("a")), "m.yaml:1:4");
    EXPECT_THAT(in.problems(), ElementsAre("m.yaml:2:4: b is odd", "m.yaml:2:8: c and a differ"));
}

#endif

TEST(Nearest, AllowsOneSlipInShortWordsAndThreeInLongOnes) {
    const std::vector<std::string> names{"steps", "seconds", "guidance", "audio_guidance"};
    EXPECT_EQ(nearest("step", names), "steps");
    EXPECT_EQ(nearest("setps", names), "steps");
    EXPECT_EQ(nearest("secnods", names), "seconds");
    EXPECT_EQ(nearest("audio-gidance", names), "audio_guidance");
    EXPECT_EQ(nearest("spets", names), "");
    EXPECT_EQ(nearest("x", names), "");
    EXPECT_EQ(nearest("", names), "");
    EXPECT_EQ(nearest(std::string(100'000, 'a'), {std::string(100'000, 'a')}), "");
}

}  // namespace
}  // namespace gallop
