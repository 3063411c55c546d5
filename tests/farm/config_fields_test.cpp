#include "farm/config_fields.hpp"

#include <nlohmann/json.hpp>

#include "farm/manifest_case.hpp"
#include "farm/run_json.hpp"

namespace gallop {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* blocks =
    "resources: {gpus_per_item: 4}\n"
    "schedule: {order: preview, chunk: 2m, silent: 5s}\n"
    "retry: {attempts: 5, other_host: false, on_oom: [split, quarantine], stop_after_failed: 2%}\n"
    "limits: {gpu_hours: 900, walltime_reserve: 120s, disk_free: {pause_below: 500GB, "
    "resume_above: 1.5TiB}}\n"
    "slurm: {nodes: 8, time: \"04:00:00\", partition: h100, requeue: false, gpus_per_node: 8, "
    "options: [--exclusive]}\n"
    "items: [{prompt: p}]\n";

class ConfigFieldsTest : public test::ManifestCase {};

TEST_F(ConfigFieldsTest, ReadEveryBlock) {
    const Manifest m = parse(with_items(blocks));
    EXPECT_EQ(m.resources.gpus_per_item, 4);
    EXPECT_EQ(m.schedule.order, Schedule::Order::preview);
    EXPECT_EQ(m.schedule.chunk_seconds, 120);
    EXPECT_EQ(m.schedule.silent_seconds, 5);
    EXPECT_EQ(m.retry.attempts, 5);
    EXPECT_FALSE(m.retry.other_host);
    EXPECT_THAT(m.retry.on_oom, ElementsAre("split", "quarantine"));
    EXPECT_EQ(m.retry.stop_after_failed, 0);
    EXPECT_DOUBLE_EQ(m.retry.stop_after_failed_share, 0.02);
    EXPECT_EQ(m.limits.gpu_hours, 900);
    EXPECT_EQ(m.limits.walltime_reserve_seconds, 120);
    EXPECT_EQ(m.limits.disk_pause_below, 500'000'000'000U);
    EXPECT_EQ(m.limits.disk_resume_above, 1'649'267'441'664U);
    EXPECT_EQ(m.slurm.nodes, 8);
    EXPECT_EQ(m.slurm.time, "04:00:00");
    EXPECT_EQ(m.slurm.partition, "h100");
    EXPECT_FALSE(m.slurm.requeue);
    EXPECT_THAT(m.slurm.options, ElementsAre("--exclusive"));
    EXPECT_EQ(parse(with_items("retry: {stop_after_failed: 7}\nitems: [{prompt: p}]"))
                  .retry.stop_after_failed,
              7);
}

TEST_F(ConfigFieldsTest, ComeBackFromTheirJson) {
    const Manifest m = parse(with_items(blocks));
    RunConfig config;
    static_cast<RunRequest&>(config) = m;
    const RunConfig back = run_config_of(run_json(config));
    for (const ConfigField& field : config_fields())
        EXPECT_EQ(field.get(back), field.get(config)) << field.path;
    EXPECT_EQ(config_json(back), config_json(config));
}

TEST_F(ConfigFieldsTest, ListEveryMistakeWithItsPlace) {
    EXPECT_THAT(
        mistakes(with_items("resources: {gpus_per_item: 3}\n"
                            "schedule: {order: longest, chunk: 2w}\n"
                            "retry: {atempts: 5, on_oom: [retry], stop_after_failed: 200%}\n"
                            "limits: {disk_free: {pause_below: lots}, walltime_reserve: -1}\n"
                            "slurm: {nodes: 0, time: 4h, requeue: yes}\n"
                            "outputs: 7\n"
                            "shedule: {}\n"
                            "items: [{prompt: p}]\n")),
        ElementsAre(
            HasSubstr("4:28: resources.gpus_per_item is 3 (must be one of: auto, 1, 2, 4, 8)"),
            HasSubstr("5:19: schedule.order is longest (must be one of"),
            HasSubstr("5:35: schedule.chunk is 2w (must be a time"),
            HasSubstr("6:9: unknown key \"atempts\"; did you mean \"attempts\"?"),
            HasSubstr("6:30: retry.on_oom names \"retry\""),
            HasSubstr("6:57: retry.stop_after_failed is 200%"),
            HasSubstr("7:35: limits.disk_free.pause_below is lots"),
            HasSubstr("7:60: limits.walltime_reserve is -1"), HasSubstr("8:16: slurm.nodes is 0"),
            HasSubstr("8:25: slurm.time is 4h"),
            HasSubstr("8:38: slurm.requeue is yes (must be true or false)"),
            HasSubstr("9:10: outputs is 7 (must be a map with root, video, audio, latents)"),
            HasSubstr("10:1: unknown key \"shedule\"; did you mean \"schedule\"?")));
    EXPECT_THAT(mistakes(with_items("limits: {disk_free: {pause_below: 2GB, resume_above: 1GB}}\n"
                                    "items: [{prompt: p}]\n")),
                ElementsAre(HasSubstr("4:54: resume_above is 1000000000 bytes")));
}

TEST_F(ConfigFieldsTest, RememberWhoSetThem) {
    write("low.yaml", "outputs: {video: {crf: 30}}\n");
    const Manifest m = parse(with_items("use: [low.yaml]\noutputs: {audio: {bitrate: 96k}}\n"
                                        "items: [{prompt: p}]\n"),
                             {{"retry.attempts=2"}, {}});
    EXPECT_EQ(m.origins.at("outputs.video.crf").layer, "preset");
    EXPECT_EQ(m.origins.at("outputs.video.crf").where.column, 24);
    EXPECT_EQ(m.origins.at("outputs.audio.bitrate").layer, "manifest");
    EXPECT_EQ(m.origins.at("retry.attempts").where.file, "--set retry.attempts=2");
    EXPECT_FALSE(m.origins.contains("retry.other_host"));
}

TEST(Durations, AreReadInEveryUsualForm) {
    EXPECT_EQ(parse_duration("90"), 90);
    EXPECT_EQ(parse_duration("1.5h"), 5400);
    EXPECT_EQ(parse_duration("5m"), 300);
    EXPECT_EQ(parse_duration("01:30:00"), 5400);
    EXPECT_EQ(parse_duration("2-00:00:01"), 172801);
    EXPECT_EQ(parse_duration("03:20"), 200);
    for (const char* wrong :
         {"", "s", "-1s", "5 weeks", "1:2:3", "1:60", ":5", "1:00:", "1:00:00:00"})
        EXPECT_FALSE(parse_duration(wrong)) << wrong;
}

TEST(Bytes, AreReadInThousandsAndIn1024s) {
    EXPECT_EQ(parse_bytes("7"), 7);
    EXPECT_EQ(parse_bytes("500GB"), 5e11);
    EXPECT_EQ(parse_bytes("1.5 TiB"), 1.5 * 1099511627776.0);
    EXPECT_EQ(parse_bytes("2k"), 2000);
    for (const char* wrong : {"", "GB", "1XB", "-1GB", "1GiBs"})
        EXPECT_FALSE(parse_bytes(wrong)) << wrong;
}

}  // namespace
}  // namespace gallop
