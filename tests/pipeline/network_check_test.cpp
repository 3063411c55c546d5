#include "pipeline/network_check.hpp"

#include <filesystem>

#include <gmock/gmock.h>

#include "core/files.hpp"
#include "model/make_model.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
using namespace test;
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class NetworkCheckTest : public ::testing::Test {
protected:
    NetworkCheckTest() {
        make_model(fs::path(GALLOP_ROOT) / "configs/models/tiny.yaml", model_, 1);
    }
    NetworkCheck check(Precision precision = Precision::bf16) {
        return NetworkCheck({.path = model_.string(), .arch = {}, .precision = precision});
    }
    /// The only file of a part with that ending.
    fs::path file(const std::string& part, const std::string& ending) const {
        for (const auto& entry : fs::directory_iterator(model_ / part))
            if (entry.path().extension() == ending) return entry.path();
        ADD_FAILURE() << "no " << ending << " in " << part;
        return {};
    }
    static void shorten(const fs::path& file) { fs::resize_file(file, fs::file_size(file) - 10); }

    TemporaryFolder folder_;
    fs::path model_ = folder_ / "model";
};

/// An item that needs every network there is.
Item all_of_it(VideoDecoder decoder = VideoDecoder::turbo) {
    Item item;
    item.sr = "540p_sr";
    item.image = "photo.png";
    item.decoder = decoder;
    return item;
}

TEST_F(NetworkCheckTest, FindsNothingInAWholeModel) {
    for (const Precision precision : {Precision::fp32, Precision::bf16, Precision::fp8}) {
        NetworkCheck networks = check(precision);
        EXPECT_THAT(networks.mistakes(all_of_it()), IsEmpty());
        EXPECT_THAT(networks.mistakes(all_of_it(VideoDecoder::wan)), IsEmpty());
    }
}

TEST_F(NetworkCheckTest, TellsEachNetworkOnceAndOnlyThoseThatAreNeeded) {
    const fs::path sr = file("540p_sr", ".safetensors");
    const fs::path sound = file("stable-audio-open-1.0", ".safetensors");
    shorten(sr);
    shorten(sound);
    NetworkCheck networks = check();
    EXPECT_THAT(networks.mistakes({}), ElementsAre(HasSubstr(sound.string())));
    EXPECT_THAT(networks.mistakes({}), IsEmpty());
    EXPECT_THAT(networks.mistakes(all_of_it()), ElementsAre(HasSubstr(sr.string())));
}

TEST_F(NetworkCheckTest, TellsMissingFilesOfEveryPart) {
    fs::remove(file("t5gemma-9b-9b-ul2", ".model"));
    fs::remove_all(model_ / "distill");
    fs::remove(file("turbo_vae", ".ckpt"));
    fs::remove(model_ / "Wan2.2_VAE.pth");
    const std::vector<std::string> found = check().mistakes(all_of_it());
    EXPECT_THAT(found, ElementsAre(HasSubstr("tokenizer.model"), HasSubstr("distill"),
                                   HasSubstr("Wan2.2_VAE.pth"), HasSubstr("turbo_vae")));
}

TEST_F(NetworkCheckTest, TellsTheFirstTensorsOfAnotherArchitecture) {
    const fs::path other = folder_ / "other.yaml";
    std::string text = read_text(fs::path(GALLOP_ROOT) / "configs/models/tiny.yaml");
    text.replace(text.find("hidden_size: 64"), 15, "hidden_size: 96");
    write_atomically(other, text);
    NetworkCheck networks({.path = model_.string(), .arch = other.string()});
    Item item;
    const std::vector<std::string> found = networks.mistakes(item);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_THAT(found[0], AllOf(HasSubstr("tensors do not fit the architecture"),
                                HasSubstr("misshapen"), HasSubstr("… and ")));
    EXPECT_LE(std::count(found[0].begin(), found[0].end(), '\n'), 12);
}

}  // namespace
}  // namespace gallop
