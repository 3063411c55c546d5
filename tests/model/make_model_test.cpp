#include "model/make_model.hpp"

#include <cmath>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/files.hpp"
#include "model/bundle.hpp"
#include "model/tokenizer.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using test::TemporaryFolder;
using testing::HasSubstr;
using testing::ThrowsMessage;

const std::filesystem::path tiny = std::filesystem::path(GALLOP_ROOT) / "configs/models/tiny.yaml";

// One tiny model for all tests that only read it.
class TinyModel : public testing::Test {
protected:
    static void SetUpTestSuite() {
        folder_ = new TemporaryFolder;
        make_model(tiny, *folder_ / "model", 7);
    }
    static void TearDownTestSuite() {
        delete folder_;
        folder_ = nullptr;
    }
    static std::filesystem::path model() { return *folder_ / "model"; }

    inline static TemporaryFolder* folder_ = nullptr;
};

TEST_F(TinyModel, NamesAFolderThatIsAFile) {
    const TemporaryFolder folder;
    const std::filesystem::path turbo = folder / "model" / bundle_names::turbo;
    std::filesystem::copy(model(), folder / "model", std::filesystem::copy_options::recursive);
    std::filesystem::remove_all(turbo);
    std::ofstream(turbo) << "weights";
    EXPECT_THAT([&] { (void)open_bundle(folder / "model").turbo_vae(); },
                ThrowsMessage<InputError>(HasSubstr(turbo.string() + ": cannot be read")));
}

TEST_F(TinyModel, LoadsEveryPartStrictly) {
    const Bundle bundle = open_bundle(model());
    const Architecture& a = bundle.architecture;
    const auto on = make_cpu_backend(1);
    ASSERT_EQ(a.variants.size(), 4U);
    for (const auto& [name, variant] : a.variants) {
        const auto checkpoint = Checkpoint::open(bundle.dit(name));
        EXPECT_GE(checkpoint.files().size(), 2U);
        (void)checkpoint.load(transformer_specs(variant.network, DType::bf16), *on);
        EXPECT_EQ(checkpoint.find("block.layers.1.mlp.down_proj.weight")->type,
                  name == "base" ? StoredType::bf16 : StoredType::f32);
    }
    (void)Checkpoint::open(bundle.wan_vae()).load(specs(a.wan), *on);
    (void)Checkpoint::open(bundle.turbo_vae()).load(specs(a.turbo), *on);
    (void)Checkpoint::open(bundle.audio_vae())
        .load(specs(a.audio), *on, {.prefix = std::string(audio_vae_prefix)});
    const TextEncoder text(bundle.text_encoder(), {.compute = DType::f32}, *on);
    const Tokenizer tokenizer = Tokenizer::open(bundle.text_encoder());
    const Tensor states = text.encode(tokenizer.encode("A red kite above the sea").ids);
    EXPECT_EQ(states.size(1), 64);
}

TEST_F(TinyModel, CarriesItsArchitecture) {
    const Architecture own = open_bundle(model()).architecture;
    const Architecture file = read_architecture(tiny);
    EXPECT_EQ(own.name, "tiny");
    EXPECT_EQ(own.variants.at("1080p_sr").network.local_attn_layers,
              file.variants.at("1080p_sr").network.local_attn_layers);
    EXPECT_EQ(own.wan.dim, file.wan.dim);
    EXPECT_EQ(own.turbo.channels, file.turbo.channels);
    EXPECT_EQ(own.audio.encoder.channels, file.audio.encoder.channels);
    EXPECT_EQ(own.text.window, file.text.window);
}

TEST_F(TinyModel, HoldsPlausibleValues) {
    const Bundle bundle = open_bundle(model());
    for (const auto& path : {bundle.dit("distill"), bundle.wan_vae(), bundle.turbo_vae(),
                             bundle.audio_vae(), bundle.text_encoder()}) {
        const auto checkpoint = Checkpoint::open(path);
        for (const StoredTensor& stored : checkpoint.tensors()) {
            const Tensor values = checkpoint.read_f32(stored.name);
            double sum = 0;
            double squares = 0;
            for (const float value : values.span<float>()) {
                ASSERT_TRUE(std::isfinite(value)) << stored.name;
                sum += value;
                squares += static_cast<double>(value) * value;
            }
            const auto count = static_cast<double>(values.numel());
            const double mean = sum / count;
            if (count > 1) {
                EXPECT_GT(squares / count - mean * mean, 0) << stored.name;
            }
            if (stored.shape.rank() >= 2 && count >= 10'000 && !stored.name.ends_with("weight_v")) {
                // A matrix keeps the variance of its input: fan-in times its own variance is 1;
                // from 10,000 values the estimate is good to 1.4 % (one sigma), bf16 adds nothing.
                const double fan_in = count / static_cast<double>(stored.shape[0]);
                EXPECT_NEAR(squares / count * fan_in, 1.0, 0.06) << stored.name;
            }
        }
    }
    const auto dit = Checkpoint::open(bundle.dit("base"));
    EXPECT_THAT(dit.read("adapter.rope.bands").span<float>(), testing::ElementsAre(1.0F, 0.01F));
    EXPECT_NEAR(dit.read("block.layers.0.attention.pre_norm.weight").data<float>()[0], 0.0F, 0.4F);
}

TEST_F(TinyModel, IsTheSameForTheSameSeedOnly) {
    const TemporaryFolder other;
    make_model(tiny, other / "same", 7);
    make_model(tiny, other / "else", 8);
    std::size_t compared = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(model())) {
        if (!entry.is_regular_file()) continue;
        const auto name = std::filesystem::relative(entry.path(), model());
        const std::string bytes = read_text(entry.path());
        EXPECT_EQ(bytes, read_text(other / "same" / name)) << name;
        const std::string kind = name.extension().string();
        if (kind == ".safetensors" || kind == ".pth" || kind == ".ckpt") {
            EXPECT_NE(bytes, read_text(other / "else" / name)) << name;
        }
        ++compared;
    }
    EXPECT_GE(compared, 4U * 3 + 1 + 2 + 2 + 6 + 1);
}

TEST_F(TinyModel, DoesNotOverwrite) {
    EXPECT_THAT([] { make_model(tiny, model(), 7); },
                ThrowsMessage<InputError>(HasSubstr("is there already and not empty")));
}

TEST_F(TinyModel, CanBeMadeAgainFromItsOwnArchitecture) {
    const TemporaryFolder other;
    make_model(model() / "gallop.yaml", other / "again", 7);
    EXPECT_EQ(read_text(other / "again/Wan2.2_VAE.pth"), read_text(model() / "Wan2.2_VAE.pth"));
}

TEST_F(TinyModel, IsOpenedWithAnotherArchitectureFileWhenOneIsGiven) {
    const TemporaryFolder other;
    write_atomically(other / "arch.yaml", R"({"name": "mine", "variants": {"x": {}}})");
    const Bundle bundle = open_bundle(model(), other / "arch.yaml");
    EXPECT_EQ(bundle.architecture.name, "mine");
    // What the folder says of its networks goes before.
    EXPECT_EQ(bundle.architecture.text.width, 64);
    EXPECT_EQ(bundle.architecture.turbo.channels.front(), 8);
}

// The network's own file would give these keys other values than the section does.
TEST(MakeModel, WritesTheTurboKeysThatTheSectionLacks) {
    const TemporaryFolder folder;
    std::string text = read_text(tiny);
    for (const char* line :
         {"  use_unpatchify: true\n", "  first_chunk_size: 7\n", "  step_size: 7\n",
          "  decoder_spatio_only: [false, true, false, false]\n"}) {
        ASSERT_NE(text.find(line), std::string::npos) << line;
        text.erase(text.find(line), std::string_view(line).size());
    }
    write_atomically(folder / "arch.yaml", text);
    std::filesystem::copy(tiny.parent_path() / "tiny-tokenizer.model",
                          folder / "tiny-tokenizer.model");
    make_model(folder / "arch.yaml", folder / "model", 1);
    const Bundle bundle = open_bundle(folder / "model");
    const TurboVaeConfig& turbo = bundle.architecture.turbo;
    EXPECT_TRUE(turbo.unpatchify);
    EXPECT_EQ(turbo.first_chunk, 7);
    EXPECT_EQ(turbo.spatial_only, (std::vector<bool>{false, true, false, false}));
    const auto on = make_cpu_backend(1);
    (void)Checkpoint::open(bundle.turbo_vae()).load(specs(turbo), *on);
}

TEST(Bundle, ReadsItsTurboFilesAbsentKeysAsTheAuthorsClass) {
    const TemporaryFolder folder;
    std::filesystem::create_directory(folder / "turbo_vae");
    EXPECT_EQ(open_bundle(folder.path()).architecture.turbo.step, 7);
    write_atomically(folder / "turbo_vae/mine.json", R"({"latent_channels": 48})");
    EXPECT_EQ(open_bundle(folder.path()).architecture.turbo.step, 5);
}

TEST(Bundle, IsThePublishedOneWithoutAnArchitecture) {
    const TemporaryFolder folder;
    const Bundle bundle = open_bundle(folder.path());
    EXPECT_EQ(bundle.architecture.variants.size(), 4U);
    EXPECT_EQ(bundle.variant("base").network.num_layers, 40);
}

TEST(Bundle, NamesWhatIsNotThere) {
    const TemporaryFolder folder;
    const Bundle bundle = open_bundle(folder.path());
    EXPECT_THAT([&] { (void)bundle.dit("base"); },
                ThrowsMessage<InputError>(HasSubstr("base: the trans")));
    EXPECT_THAT(
        [&] { (void)bundle.variant("nano"); },
        ThrowsMessage<InputError>(HasSubstr("no variant 'nano' (there are 1080p_sr, 540p_sr, base, "
                                            "distill)")));
    EXPECT_THAT([&] { (void)bundle.wan_vae(); },
                ThrowsMessage<InputError>(HasSubstr("Wan2.2_VAE.pth")));
    EXPECT_THAT([&] { (void)bundle.turbo_vae(); },
                ThrowsMessage<InputError>(HasSubstr("turbo_vae")));
    EXPECT_THROW((void)bundle.audio_vae(), InputError);
    EXPECT_THROW((void)bundle.text_encoder(), InputError);
    EXPECT_THROW((void)open_bundle(folder / "none"), InputError);
}

TEST(Bundle, TakesTheOnlyTurboFileWhateverItsName) {
    const TemporaryFolder folder;
    std::filesystem::create_directory(folder / "turbo_vae");
    write_atomically(folder / "turbo_vae/mine.safetensors", "x");
    const Bundle bundle = open_bundle(folder.path());
    EXPECT_EQ(bundle.turbo_vae().filename(), "mine.safetensors");
    write_atomically(folder / "turbo_vae/yours.ckpt", "x");
    EXPECT_THAT([&] { (void)bundle.turbo_vae(); },
                ThrowsMessage<InputError>(HasSubstr("several files could be meant")));
    write_atomically(folder / "turbo_vae/checkpoint-340000.ckpt", "x");
    EXPECT_EQ(bundle.turbo_vae().filename(), "checkpoint-340000.ckpt");
}

TEST(Bundle, FindsTheWanVaeInItsRepositorysFolder) {
    const TemporaryFolder folder;
    write_atomically(folder / "Wan2.2-TI2V-5B/Wan2.2_VAE.pth", "x");
    EXPECT_EQ(open_bundle(folder.path()).wan_vae(), folder / "Wan2.2-TI2V-5B/Wan2.2_VAE.pth");
}

}  // namespace
}  // namespace gallop
