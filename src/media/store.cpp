#include "media/store.hpp"

#include <string>

#include "core/check.hpp"

namespace gallop {
namespace {

std::filesystem::path place(const std::filesystem::path& root, std::string_view id,
                            std::string_view suffix) {
    CHECK(id.size() >= 4 && id.find_first_not_of("0123456789abcdef") == std::string_view::npos,
          "item id '{}' (must be at least four lower-case hex digits)", id);
    return root / id.substr(0, 2) / id.substr(2, 2) / fmt::format("{}{}", id, suffix);
}

}  // namespace

std::filesystem::path clip_path(const std::filesystem::path& run, std::string_view id) {
    return place(run / "clips", id, ".mp4");
}

std::filesystem::path latents_path(const std::filesystem::path& run, std::string_view id) {
    return place(run / "latents", id, ".h5");
}

}  // namespace gallop
