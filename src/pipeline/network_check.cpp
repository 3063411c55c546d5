#include "pipeline/network_check.hpp"

#include <algorithm>

#include "core/check.hpp"
#include "core/file_errors.hpp"
#include "model/audio_vae.hpp"
#include "model/text_encoder.hpp"
#include "model/tokenizer.hpp"
#include "model/turbo_vae.hpp"
#include "model/wan_vae.hpp"

namespace gallop {
namespace {

/// The first lines of a text. Of the wrong architecture every tensor is wrong, and the first few say so.
std::string beginning(const std::string& text) {
    constexpr int most_lines = 12;
    std::size_t end = 0;
    for (int line = 0; line < most_lines && end != std::string::npos; ++line)
        end = text.find('\n', end + 1);
    if (end == std::string::npos) return text;
    const auto more = std::count(text.begin() + static_cast<std::ptrdiff_t>(end), text.end(), '\n');
    return fmt::format("{}\n  … and {} more", text.substr(0, end), more);
}

}  // namespace

NetworkCheck::NetworkCheck(const ModelChoice& choice)
    : bundle_(open_bundle(choice.path, choice.arch)),
      memory_(bundle_.architecture, choice.precision, choice.fp8) {}

std::vector<std::string> NetworkCheck::mistakes(const Item& item) {
    std::vector<std::string> found;
    const auto look = [&](const std::string& network, const auto& require) {
        if (!known_.insert(network).second) return;
        try {
            require();
        } catch (const InputError& wrong) {
            found.push_back(beginning(wrong.what()));
        } catch (const AccessError& wrong) {
            found.emplace_back(wrong.what());
        }
    };
    const auto wan = [&](WanPart part) {  // the other half's tensors are surplus, not mistakes
        Checkpoint::open(bundle_.wan_vae())
            .require(specs(bundle_.architecture.wan, part, memory_.dtype()), {.strict = false});
    };
    look("tokenizer", [&] { Tokenizer::open(bundle_.text_encoder()); });
    look("text encoder",
         [&] { require_text_encoder(bundle_.text_encoder(), memory_.text_options()); });
    for (const std::string& variant : {item.variant, item.sr})
        if (!variant.empty())
            look("transformer " + variant, [&] {
                bundle_.variant(variant);
                Checkpoint::open(bundle_.dit(variant)).require(memory_.transformer_table(variant));
            });
    if (!item.image.empty()) look("picture encoder", [&] { wan(WanPart::encoder); });
    if (item.decoder == VideoDecoder::wan)
        look("full decoder", [&] { wan(WanPart::decoder); });
    else
        look("turbo decoder", [&] {
            require_turbo_vae(Checkpoint::open(bundle_.turbo_vae()), bundle_.architecture.turbo,
                              memory_.dtype());
        });
    look("sound VAE", [&] {
        Checkpoint::open(bundle_.audio_vae())
            .require(specs(bundle_.architecture.audio), {.prefix = std::string(audio_vae_prefix)});
    });
    return found;
}

}  // namespace gallop
