#include "model/presence.hpp"

#include "core/check.hpp"
#include "core/file_errors.hpp"

namespace gallop {

bool there(const std::filesystem::path& path) {
    std::error_code failed;
    const bool found = std::filesystem::exists(path, failed);
    if (failed && is_disk_errno(failed.value()))
        throw_file_error(path, "cannot be read", failed.value());
    if (failed) throw_input_error("{}: cannot be read: {}", path.string(), failed.message());
    return found;
}

}  // namespace gallop
