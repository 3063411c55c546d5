// A manifest, from text to resolved items, beside a model folder that has every network.

#include <cstdint>
#include <cstdlib>
#include <set>
#include <string_view>

#include "core/error.hpp"
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
        const gallop::Manifest manifest = gallop::parse_manifest(text, folder() / "m.yaml");
        require(!manifest.items.empty());
        std::set<std::string_view> names;
        for (const gallop::ResolvedItem& resolved : manifest.items) {
            const gallop::Item& item = resolved.item;
            require(names.insert(item.name).second);
            require(item.frames >= 1 && item.audio_latents >= 1);
            require(item.seed < std::uint64_t{1} << 53);
            for (const gallop::Size& size_of : {item.size, item.base_size})
                require(size_of.width >= 32 && size_of.height >= 32 && size_of.width % 32 == 0 &&
                        size_of.height % 32 == 0);
        }
    } catch (const gallop::InputError&) {
    }
    return 0;
}
