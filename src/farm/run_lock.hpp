#pragma once

#include <filesystem>

#include "core/files.hpp"
#include "core/handle.hpp"

namespace gallop {

/// Holds a run directory for this process. The kernel gives it up when the process ends, however it
/// ends; the file `LOCK` stays and names the last holder.
class RunLock {
public:
    /// Makes the directory when missing. Throws InputError that names host and process when another
    /// process holds it, Error when it cannot be locked.
    explicit RunLock(const std::filesystem::path& directory);

private:
    Handle<int, detail::close_descriptor, -1> descriptor_;
};

/// This machine's name.
std::string host_name();

}  // namespace gallop
