#pragma once

#include <filesystem>
#include <string_view>

#include "core/error.hpp"

namespace gallop {

/// The disk refused: full, over quota, read-only, failing or out of reach. The same work may succeed
/// once it has recovered.
struct DiskError : Error {
    using Error::Error;
};

/// A file or folder may not be used as asked: no permission, none of that name, a file where a folder
/// is needed. A person has to look at it; another try is no use.
struct AccessError : Error {
    using Error::Error;
};

/// What came out is worthless or damaged: not finite, constant, of a wrong length, undecodable.
struct BadOutputError : Error {
    using Error::Error;
};

/// Whether an errno means that the disk refused: ENOSPC, EDQUOT, EIO, EROFS, ESTALE, ENOTCONN, …
bool is_disk_errno(int code);

/// Whether an errno says that the path or its permissions are wrong: EACCES, EPERM, ENOENT, ENOTDIR, EISDIR,
/// ELOOP, ENAMETOOLONG.
bool is_access_errno(int code);

/// Throws "PATH: WHAT: reason" for an errno: DiskError when the disk refused, AccessError when the
/// path or its permissions are wrong, else Error.
[[noreturn]] void throw_file_error(const std::filesystem::path& path, std::string_view what,
                                   int code);

/// Writes all of `bytes` at the descriptor's position. Throws as `throw_file_error` does; `path` is
/// for the message.
void write_all(int descriptor, std::string_view bytes, const std::filesystem::path& path);

/// Waits until a folder's entries are on disk. Throws DiskError, Error.
void sync_folder(const std::filesystem::path& folder);

}  // namespace gallop
