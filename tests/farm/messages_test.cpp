#include "farm/messages.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"

namespace gallop::message {
namespace {

using testing::HasSubstr;

std::string complaint(std::string_view text) {
    try {
        parse(text);
    } catch (const Error& wrong) {
        return wrong.what();
    }
    return "";
}

const std::string id = "00112233445566778899aabbccddeeff";

TEST(Messages, AreOneObjectWithVersionAndKind) {
    EXPECT_EQ(to_text(Revoke{2, {7, 9}, true}),
              R"({"v":1,"kind":"revoke","slot":2,"items":[7,9],"begun":true})");
    EXPECT_EQ(to_text(Ping{}), R"({"v":1,"kind":"ping"})");
}

TEST(Messages, ComeBackAsTheyWere) {
    const Done done{1,
                    5,
                    id,
                    2,
                    {"clips/a.mp4", 10, "cd"},
                    OutputFile{"latents/a.h5", 20, "ef"},
                    {{{"base", 0.5}, {"total", 0.75}}},
                    true};
    const auto back = std::get<Done>(parse(to_text(done)));
    EXPECT_EQ(back.slot, 1);
    EXPECT_EQ(back.item, 5U);
    EXPECT_EQ(back.id, id);
    EXPECT_EQ(back.attempt, 2);
    EXPECT_EQ(back.clip.path, "clips/a.mp4");
    EXPECT_EQ(back.clip.bytes, 10U);
    EXPECT_EQ(back.latents.value().sha256, "ef");
    EXPECT_EQ(back.seconds.stages, done.seconds.stages);
    EXPECT_TRUE(back.adopted);
    EXPECT_FALSE(std::get<Done>(parse(to_text(Done{}))).latents.has_value());

    const Lease lease{3, 1, {{9, 1ULL << 40, 800, id, 1, 1.5}, {10, 0, 1, id, 1, 0}}};
    EXPECT_EQ(std::get<Lease>(parse(to_text(lease))).items, lease.items);
    const auto failed = std::get<Failed>(parse(
        to_text(Failed{0, 1, id, 1, FailureKind::out_of_memory, "no\n\"memory\"", "logs/x"})));
    EXPECT_EQ(failed.why, FailureKind::out_of_memory);
    EXPECT_EQ(failed.error, "no\n\"memory\"");
}

// One of each kind, with every field set to something else than its default where that is short.
TEST(Messages, OfEveryKindAreRead) {
    const std::vector<Message> all = {Begin{"runs/a"},
                                      Lease{1, 7, {{1, 2, 3, id, 1, 4}}},
                                      Revoke{1, {2}, true},
                                      Restart{1, 2, "far beyond its time"},
                                      Regroup{{0, 1}, 2},
                                      Reset{},
                                      Stop{},
                                      Ping{},
                                      Goodbye{},
                                      Join{"host", 12, "cpu", 2, 1, 1},
                                      Beat{{{1, 2, "base", 3, 8, 0.5}}},
                                      Ready{1, 7, 2, "cpu"},
                                      Gone{1, true, FailureKind::hung, "silent"},
                                      Begun{1, 2},
                                      Done{1, 2, id, 1, {"a", 1, "b"}, {}, {}, false},
                                      Failed{1, 2, id, 1, FailureKind::disk, "full", "logs/x"},
                                      Returned{1, {2, 3}, true},
                                      Leaving{"asked"},
                                      Pulse{5, "base", 1, 8},
                                      Finishing{2},
                                      Broken{FailureKind::input, "no model"}};
    EXPECT_EQ(all.size(), std::variant_size_v<Message>);
    for (std::size_t i = 0; i < all.size(); ++i) {
        const Message back = parse(to_text(all[i]));
        EXPECT_EQ(back.index(), i) << to_text(all[i]);
        EXPECT_EQ(to_text(back), to_text(all[i]));
    }
}

TEST(Messages, AreRefusedWhenAnythingIsWrong) {
    EXPECT_THAT(complaint("hello"), HasSubstr("not a JSON object"));
    EXPECT_THAT(complaint("[]"), HasSubstr("not a JSON object"));
    EXPECT_THAT(complaint(R"({"kind":"ping"})"), HasSubstr("v is missing"));
    EXPECT_THAT(complaint(R"({"kind":"ping","v":2})"), HasSubstr("version 2 (must be 1)"));
    EXPECT_THAT(complaint(""), HasSubstr("not a JSON object"));
    EXPECT_THAT(complaint(R"({"kind":"pong","v":1})"), HasSubstr("unknown kind \"pong\""));
    EXPECT_THAT(complaint(R"({"kind":"ping","v":1,"x":0})"), HasSubstr("x is 0 (must be absent)"));
    EXPECT_THAT(complaint(R"({"kind":"begun","v":1,"slot":1})"), HasSubstr("item is missing"));
    EXPECT_THAT(complaint(R"({"kind":"begun","v":1,"slot":-1,"item":0})"),
                HasSubstr("slot is -1 (must be a whole number from 0)"));
    EXPECT_THAT(complaint(R"({"kind":"begun","v":1,"slot":1,"item":4294967296})"),
                HasSubstr("item is 4294967296"));
    EXPECT_THAT(complaint(R"({"kind":"begun","v":1,"slot":1.5,"item":0})"),
                HasSubstr("slot is 1.5"));
    EXPECT_THAT(complaint(R"({"kind":"revoke","v":1,"slot":0,"items":[],"begun":1})"),
                HasSubstr("true or false"));
    EXPECT_THAT(complaint(R"({"kind":"leaving","v":1,"why":3})"),
                HasSubstr("why is 3 (must be a text)"));
    EXPECT_THAT(complaint(R"({"kind":"gone","v":1,"slot":0,"for_good":true,"why":"x","error":""})"),
                HasSubstr("why is \"x\" (must be a kind of failure)"));
    EXPECT_THAT(complaint(R"({"kind":"leaving","v":1,"why":")" + std::string(4000, 'a') + "\"}"),
                HasSubstr("at most 4000"));
}

TEST(Messages, NeverExceedTheirBound) {
    Failed longest{65535, 0xffffffff,           id, 1000, FailureKind::out_of_memory,
                   {},    std::string(300, 'l')};
    // The worst text that `shortened` lets pass: each byte takes two.
    longest.error = shortened(std::string(5000, '"'), 1500);
    EXPECT_LE(to_text(longest).size(), most_bytes);
    EXPECT_THROW(to_text(Leaving{std::string(5000, 'a')}), Error);
}

TEST(Messages, CutALongLeaseIntoSeveral) {
    std::vector<Task> items(100,
                            Task{0xffffffff, ~0ULL, 0xffffffff, id, 1 << 20, 12345.678901234567});
    for (std::uint32_t i = 0; i < items.size(); ++i) items[i].item = i;
    std::vector<Task> back;
    for (const Lease& lease : leases(4, 6, items)) {
        EXPECT_EQ(lease.slot, 4);
        EXPECT_EQ(lease.round, 6);
        const auto part = std::get<Lease>(parse(to_text(lease))).items;
        back.insert(back.end(), part.begin(), part.end());
    }
    EXPECT_EQ(back, items);
    EXPECT_TRUE(leases(4, 6, {}).empty());
}

}  // namespace
}  // namespace gallop::message
