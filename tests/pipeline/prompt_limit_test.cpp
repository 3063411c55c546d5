#include "pipeline/prompt_limit.hpp"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/files.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// A model folder without weights.
class PromptLimitTest : public testing::Test {
protected:
    PromptLimitTest() {
        write_atomically(folder_ / "arch.json", R"({"name": "x", "variants": {}})");
    }
    void add_tokenizer() {
        const auto text = folder_ / "t5gemma-9b-9b-ul2";
        std::filesystem::create_directories(text);
        std::filesystem::copy_file(
            std::filesystem::path(GALLOP_ROOT) / "configs/models/tiny-tokenizer.model",
            text / "tokenizer.model");
    }
    std::string excess(const std::string& prompt) const {
        return PromptLimit({folder_.path().string(), (folder_ / "arch.json").string()})
            .excess(prompt);
    }
    test::TemporaryFolder folder_;
};

std::string masks(int count) {
    std::string prompt;
    for (int i = 0; i < count; ++i) prompt += "<mask>";
    return prompt;
}

TEST_F(PromptLimitTest, CountsTokensAndNamesTheWordsThatAreNotRead) {
    add_tokenizer();
    EXPECT_EQ(excess(masks(640)), "");
    EXPECT_THAT(excess(masks(640) + " a kettle"),
                AllOf(HasSubstr("takes 640; the end is cut: \"a kettle\"")));
    EXPECT_THAT(excess(masks(812)), HasSubstr("the prompt has 812 tokens"));
    EXPECT_THROW(excess(std::string((1U << 20) + 1, 'a')), InputError) << "no tokenizer takes it";
}

TEST_F(PromptLimitTest, EstimatesWithoutATokenizer) {
    EXPECT_EQ(excess(std::string(2300, 'a')), "");
    EXPECT_THAT(excess(std::string(100000, 'a')), HasSubstr("about 27029 tokens"));
}

}  // namespace
}  // namespace gallop
