#include "farm/explain.hpp"

#include "farm/manifest_case.hpp"
#include "support/sound_file.hpp"

namespace gallop {
namespace {

class ExplainTest : public test::ManifestCase {
protected:
    /// "value [layer place]" of a field.
    std::string said(const std::vector<Explained>& rows, const std::string& field) {
        for (const Explained& row : rows) {
            if (row.field != field) continue;
            std::string where = to_string(row.where);
            const std::string root = folder_.path().string() + "/";
            if (where.starts_with(root)) where = where.substr(root.size());
            return row.value + " [" + row.layer + (where.empty() ? "" : " " + where) + "]";
        }
        return "";
    }
};

TEST_F(ExplainTest, SaysWhoSetEachValue) {
    write("low.yaml", "defaults: {decoder: wan}\noutputs: {video: {crf: 30}}\n");
    write("a.jsonl", "{\"name\": \"x\", \"prompt\": \"rain\"}\n");
    const Manifest manifest =
        parse(with_items("use: [low.yaml]\n"
                         "defaults: {seconds: 2}\n"
                         "items: [{from: a.jsonl}]\n"
                         "sweep: {matrix: {shift: [3, 4]}}\n"
                         "overrides: [{match: {shift: 4}, set: {passes: 2}}]\n"
                         "seeds: {base: 7}\n"),
              {{"steps.base=2"}, {}});
    const auto rows = explain(manifest, "x-shift=4");
    EXPECT_EQ(said(rows, "name"), "x-shift=4 [item a.jsonl:1:1]");
    EXPECT_EQ(said(rows, "decoder"), "wan [preset low.yaml:1:21]");
    EXPECT_EQ(said(rows, "seconds"), "2 [defaults m.yaml:5:21]");
    EXPECT_EQ(said(rows, "shift"), "4 [sweep cell m.yaml:7:29]");
    EXPECT_EQ(said(rows, "prompt"), "rain [item a.jsonl:1:25]");
    EXPECT_EQ(said(rows, "passes"), "2 [overrides m.yaml:8:47]");
    EXPECT_EQ(said(rows, "steps.base"), "2 [--set --set steps.base=2]");
    EXPECT_EQ(said(rows, "resolution"), "256p [default]");
    EXPECT_EQ(said(rows, "task"), "t2av [default]");
    EXPECT_EQ(said(rows, "seed"),
              std::to_string(derive_seed(7, "x", 0)) + " [drawn from seeds m.yaml:9:15]");
    EXPECT_EQ(said(rows, "outputs.video.crf"), "30 [preset low.yaml:2:24]");
    EXPECT_EQ(said(rows, "retry.attempts"), "3 [default]");
    EXPECT_EQ(said(explain(manifest, "x"), "shift"), "3 [sweep cell m.yaml:7:26]");
    EXPECT_TRUE(explain(manifest, "y").empty());
}

TEST_F(ExplainTest, SaysHowLongAClipComesOutAndWhy) {
    test::write_sound(folder_ / "voice.wav", 52200);
    const Manifest manifest =
        parse(with_items("items:\n"
                         "  - {name: a, prompt: p}\n"
                         "  - {name: b, prompt: p, frames: 8}\n"
                         "  - {name: c, prompt: p, audio: voice.wav, seconds: 2}\n"));
    EXPECT_EQ(said(explain(manifest, "a"), "length"),
              "125 pictures, 126 latents of sound [from seconds]");
    EXPECT_EQ(said(explain(manifest, "b"), "length"),
              "8 pictures, 9 latents of sound [from frames m.yaml:6:34]");
    EXPECT_EQ(said(explain(manifest, "c"), "length"),
              "25 pictures, 25 latents of sound, from 52200 samples at 51,200 Hz "
              "[from audio m.yaml:7:33]");
}

TEST(ItemFieldTable, HasARowForEachFieldInOrder) {
    ASSERT_EQ(item_fields().size(), item_field_count);
    for (std::size_t i = 0; i < item_field_count; ++i) {
        ASSERT_FALSE(item_fields()[i].path.empty()) << i;
        EXPECT_EQ(find_item_field(item_fields()[i].path), static_cast<ItemField>(i));
    }
}

}  // namespace
}  // namespace gallop
