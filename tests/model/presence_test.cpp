#include "model/presence.hpp"

#include <cerrno>
#include <string_view>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/file_errors.hpp"
#include "model/bundle.hpp"
#include "support/temporary_folder.hpp"

/// What looking at a path that ends in "broken" fails with.
static int broken = 0;

extern "C" int stat(const char* path, struct stat* info) noexcept {
    if (!std::string_view(path).ends_with("broken"))
        return static_cast<int>(::syscall(SYS_newfstatat, AT_FDCWD, path, info, 0));
    errno = broken;
    return -1;
}

namespace gallop {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TEST(There, TellsWhatIsAbsentFromWhatCannotBeLookedAt) {
    const test::TemporaryFolder folder;
    EXPECT_TRUE(there(folder.path()));
    EXPECT_FALSE(there(folder / "nothing"));
    for (const int code : {EIO, ESTALE}) {
        broken = code;
        EXPECT_THROW(there(folder / "broken"), DiskError);
        EXPECT_THROW(open_bundle(folder / "broken", {}), DiskError);
    }
    broken = EACCES;
    try {
        open_bundle(folder / "broken", {});
        FAIL();
    } catch (const InputError& wrong) {
        EXPECT_THAT(wrong.what(), HasSubstr("cannot be read: Permission denied"));
    }
}

}  // namespace
}  // namespace gallop
