// A manifest, from text to resolved items, beside a model folder that has every network.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/error.hpp"
#include "farm/expand.hpp"
#include "farm/manifest.hpp"
#include "support/temporary_folder.hpp"

namespace {

/// The folder that relative paths of the manifest are taken from.
const gallop::test::TemporaryFolder& folder() {
    static const gallop::test::TemporaryFolder made;
    static const bool filled = [] {
        for (const char* network : {"base", "distill", "540p_sr", "1080p_sr"})
            std::filesystem::create_directories(made / "model" / network);
        return true;
    }();
    (void)filled;
    return made;
}

void require(bool holds) {
    if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        const std::string_view text(reinterpret_cast<const char*>(data), size);
        gallop::Problems problems;
        gallop::Problems notes;
        const gallop::Manifest manifest =
            gallop::parse_manifest(text, folder() / "m.yaml", {}, problems);
        if (manifest.sweep.size() * manifest.sources.size() > 100'000) return 0;
        std::size_t items = 0;
        gallop::expand(manifest, problems, notes, [&](const gallop::Expansion& one) {
            ++items;
            const gallop::Item& item = one.resolved.item;
            require(!one.name.empty());
            require(item.frames >= 1 && item.audio_latents >= 1);
            require(one.sample_seed(manifest.seeds, 0) < std::uint64_t{1} << 53);
            for (const gallop::Size& size_of : {item.size, item.base_size})
                require(size_of.width >= 32 && size_of.height >= 32 && size_of.width % 32 == 0 &&
                        size_of.height % 32 == 0);
        });
        problems.raise();
        require(items > 0);
    } catch (const gallop::InputError&) {
    }
    return 0;
}
