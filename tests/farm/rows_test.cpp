#include "farm/rows.hpp"

#include "farm/manifest_case.hpp"

namespace gallop {
namespace {

using test::Clip;
using testing::ElementsAre;
using testing::HasSubstr;

class RowsTest : public test::ManifestCase {
protected:
    std::vector<Clip> of(const std::string& items) {
        return clips(with_items("items: [" + items + "]\n"));
    }
    std::vector<std::string> wrong(const std::string& items) {
        return mistakes(with_items("items: [" + items + "]\n"));
    }
};

TEST_F(RowsTest, MakesAnItemOfEachLine) {
    write("a.jsonl",
          "{\"name\": \"x\", \"prompt\": \"rain\", \"steps\": {\"base\": 3}}\n"
          "\n"
          "{\"prompt\": \"snow\", \"seconds\": 1, \"image\": null}\r\n");
    const auto made = of("{from: a.jsonl, shift: 2}, {name: last, prompt: p}");
    EXPECT_THAT(names(made), ElementsAre("x", "a-3", "last"));
    EXPECT_EQ(made[0].item.prompt, "rain");
    EXPECT_EQ(made[0].item.base.steps, 3);
    EXPECT_EQ(made[0].item.base.shift, 2.0);
    EXPECT_EQ(made[1].item.frames, 25);
    EXPECT_EQ(made[1].where.line, 3);
    EXPECT_EQ(made[2].item.base.shift, 5.0);
}

TEST_F(RowsTest, TakesTheColumnsThatFieldsNames) {
    write("a.jsonl",
          "{\"uid\": 17, \"caption\": \"rain\", \"meta\": {\"seed\": 4}, \"other\": [1]}\n");
    const auto made = of("{from: a.jsonl, fields: {name: uid, prompt: caption, seed: meta.seed}}");
    ASSERT_EQ(made.size(), 1U);
    EXPECT_EQ(made[0].item.name, "17");
    EXPECT_EQ(made[0].item.prompt, "rain");
    EXPECT_EQ(made[0].item.seed, 4U);
}

TEST_F(RowsTest, ReadsCsvWithQuotesAndLineEnds) {
    write("a.csv",
          "\xef\xbb\xbfname,prompt,seconds\r\n"
          "one,\"rain, \"\"heavy\"\"\",1\r\n"
          "two,\"two\nlines\",\r\n");
    const auto made = of("{from: a.csv}");
    EXPECT_THAT(names(made), ElementsAre("one", "two"));
    EXPECT_EQ(made[0].item.prompt, "rain, \"heavy\"");
    EXPECT_EQ(made[0].item.frames, 25);
    EXPECT_EQ(made[1].item.prompt, "two\nlines");
    EXPECT_EQ(made[1].item.frames, 125) << "an empty cell is as if it were not there";
}

TEST_F(RowsTest, ReadsTheFilesOfAPatternInOrderUpToALimit) {
    write("rows/b.jsonl", "{\"prompt\": \"3\"}\n{\"prompt\": \"4\"}\n");
    write("rows/a.jsonl", "{\"prompt\": \"1\"}\n{\"prompt\": \"2\"}\n");
    EXPECT_THAT(names(of("{from: rows/*.jsonl}")), ElementsAre("a-1", "a-2", "b-1", "b-2"));
    EXPECT_THAT(names(of("{from: rows/*.jsonl, limit: 3}")), ElementsAre("a-1", "a-2", "b-1"));
    EXPECT_THAT(names(of("{from: [rows/b.jsonl, rows/a.jsonl], limit: 1}")), ElementsAre("b-1"));
}

TEST_F(RowsTest, NamesLineAndColumnOfAMistakeInARow) {
    write("a.jsonl",
          "{\"prompt\": \"ok\"}\n"
          "{\"prompt\": \"p\", \"seconds\": -1}\n"
          "{\"prompt\": oops}\n"
          "[1]\n"
          "{\"prompt\": \"p\", \"image\": \"none.png\"}\n"
          "{\"promt\": \"p\"}\n"
          "{\"prompt\": \"p\", \"seed\": 1, \"seed\": 2}\n");
    EXPECT_THAT(
        wrong("{from: a.jsonl}"),
        ElementsAre("ROOT/a.jsonl:2:28: seconds is -1 (must be a number from 0.001 to 600)",
                    HasSubstr("ROOT/a.jsonl:3:12: not JSON"),
                    "ROOT/a.jsonl:4:1: the row is a list (must be an object)",
                    HasSubstr("ROOT/a.jsonl:5:26: image is \"none.png\", but there is no"),
                    HasSubstr("ROOT/a.jsonl:6:1: an item without a prompt"),
                    HasSubstr("ROOT/a.jsonl:6:2: column \"promt\" is no field (did you mean "
                              "\"prompt\"?)"),
                    "ROOT/a.jsonl:7:28: duplicate key \"seed\""));
    write("a.csv", "prompt,seconds\np,1\np\nq,x\n\"open,1\n");
    EXPECT_THAT(wrong("{from: a.csv}"),
                ElementsAre("ROOT/a.csv:3:1: the row has 1 cells (the header has 2)",
                            "ROOT/a.csv:4:3: seconds is x (must be a number from 0.001 to 600)",
                            "ROOT/a.csv:5:1: the quote stays open"));
}

TEST_F(RowsTest, NamesAColumnThatNoRowHas) {
    write("a.jsonl", "{\"caption\": \"p\", \"n\": 1}\n");
    EXPECT_THAT(
        wrong("{from: a.jsonl, fields: {prompt: captoin}}"),
        testing::Contains(HasSubstr("no row has a column \"captoin\" (for prompt); there are: "
                                    "caption, n; did you mean \"caption\"?")));
    write("a.csv", "a,a\n1,2\n");
    EXPECT_THAT(wrong("{from: a.csv, fields: {prompt: a}}"),
                ElementsAre(HasSubstr("ROOT/a.csv:1:3: the header has column \"a\" twice")));
}

TEST_F(RowsTest, WantsNamesThatDiffer) {
    write("a.jsonl",
          "{\"name\": \"x\", \"prompt\": \"p\"}\n{\"name\": \"x\", \"prompt\": \"q\"}\n");
    EXPECT_THAT(wrong("{from: a.jsonl}"),
                ElementsAre(HasSubstr(
                    "a.jsonl:2:10: name is \"x\", as an item before it (names must differ)")));
}

TEST_F(RowsTest, WantsFilesThatAreThereAndHoldRows) {
    write("empty.jsonl", "\n");
    write("a.txt", "x");
    EXPECT_THAT(wrong("{from: none/*.jsonl}"),
                testing::Contains(HasSubstr("there is no such file")));
    EXPECT_THAT(wrong("{from: a.txt}"),
                testing::Contains(HasSubstr("rows come from .jsonl or .csv")));
    EXPECT_THAT(wrong("{from: empty.jsonl}"), ElementsAre(HasSubstr("from brings no rows")));
    EXPECT_THAT(wrong("{prompt: p, limit: 3}"),
                ElementsAre("4:28: limit needs from, the files to read"));
    write("b.jsonl", "{\"prompt\": \"p\"}\n");
    EXPECT_THAT(wrong("{from: b.jsonl, name: x}"),
                ElementsAre(HasSubstr("name beside from (rows must have names of their own)")));
}

TEST_F(RowsTest, KeepsAFloodOfMistakesSmall) {
    std::string rows;
    for (int i = 0; i < 3000; ++i) rows += "{\"prompt\": \"p\", \"seconds\": 0}\n";
    write("a.jsonl", rows);
    const auto lines = wrong("{from: a.jsonl}");
    ASSERT_EQ(lines.size(), Problems::most + 1);
    EXPECT_EQ(lines.back(), "… and 2000 more mistakes");
}

}  // namespace
}  // namespace gallop
