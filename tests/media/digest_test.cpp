#include "media/digest.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/files.hpp"
#include "media/store.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

// FIPS 180-4's examples.
TEST(Sha256, MatchesThePublishedExamples) {
    EXPECT_EQ(digest_text("abc"),
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(digest_text(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(digest_text(std::string(1'000'000, 'a')),
              "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, DoesNotDependOnThePieces) {
    Sha256 sha;
    sha.update("a");
    sha.update("");
    sha.update("bc");
    EXPECT_EQ(to_hex(sha.finish()), digest_text("abc"));
}

TEST(DigestFile, ReadsFilesLongerThanItsBlock) {
    const test::TemporaryFolder folder;
    write_atomically(folder / "a", std::string((2U << 20) + 3, 'x'));
    EXPECT_EQ(digest_file(folder / "a"), digest_text(std::string((2U << 20) + 3, 'x')));
    EXPECT_THROW(digest_file(folder / "none"), InputError);
}

TEST(Store, SpreadsClipsOverTwoLevelsOfFolders) {
    EXPECT_EQ(clip_path("run", "abcd1234"), "run/clips/ab/cd/abcd1234.mp4");
    EXPECT_EQ(latents_path("run", "abcd1234"), "run/latents/ab/cd/abcd1234.h5");
    EXPECT_THROW(clip_path("run", "abc"), Error);
    EXPECT_THROW(clip_path("run", "../../etc"), Error);
}

}  // namespace
}  // namespace gallop
