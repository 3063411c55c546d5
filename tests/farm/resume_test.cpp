#include "farm/resume.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/file_errors.hpp"
#include "farm/journal.hpp"
#include "media/store.hpp"
#include "support/planned_run.hpp"

/// What looking at a clip fails with; 0: it does not.
static int clips_fail_with = 0;

extern "C" int stat(const char* path, struct stat* info) noexcept {
    if (clips_fail_with == 0 || !std::string_view(path).ends_with(".mp4"))
        return static_cast<int>(::syscall(SYS_newfstatat, AT_FDCWD, path, info, 0));
    errno = clips_fail_with;
    return -1;
}

namespace gallop {
namespace {

namespace fs = std::filesystem;

TEST(Resume, OpensAgainWhatIsGoneAndNothingThatCannotBeLookedAt) {
    test::PlannedRun run;
    const test::FrozenPlan plan = run.plan("items: [{prompt: p}]");
    const fs::path directory = run.freeze(plan);
    const std::string id = plan.items[0].item.id;
    const fs::path clip = clip_path(directory, id);
    fs::create_directories(clip.parent_path());
    std::ofstream(clip) << "clip";
    const std::string journal =
        journal_line({{"event", "done"}, {"id", id}, {"clip", {{"bytes", 4}}}});
    std::ofstream(directory / "journal.jsonl") << journal;

    for (const int broken : {EIO, ESTALE}) {
        clips_fail_with = broken;
        EXPECT_THROW(load_run(directory), DiskError) << std::strerror(broken);
        clips_fail_with = 0;
        EXPECT_EQ(read_text(directory / "journal.jsonl"), journal);
    }
    EXPECT_TRUE(load_run(directory).reopened.empty());
    fs::remove(clip);
    EXPECT_EQ(load_run(directory).reopened, std::vector<coordinator::ItemIndex>{0});
}

}  // namespace
}  // namespace gallop
