// Plans many items and tells what it cost: wall time, and the most memory that the process had.
// Usage: plan_scale ROWS CELLS SAMPLES MEGABYTES SECONDS

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include <fmt/format.h>
#include <sys/resource.h>

#include "farm/plan.hpp"
#include "support/temporary_folder.hpp"

namespace {

double megabytes_at_most() {
    ::rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_maxrss) / 1024;
}

}  // namespace

int main(int argc, char** argv) {
    using namespace gallop;
    if (argc != 6) {
        std::fprintf(stderr, "usage: %s ROWS CELLS SAMPLES MEGABYTES SECONDS\n", argv[0]);
        return 2;
    }
    const long rows = std::atol(argv[1]);
    const long cells = std::atol(argv[2]);
    const long samples = std::atol(argv[3]);
    const test::TemporaryFolder folder;
    std::filesystem::create_directories(folder / "model" / "distill");
    std::ofstream(folder / "model" / "distill" / "model.safetensors") << "weights";
    {
        std::ofstream file(folder / "rows.jsonl");
        for (long i = 0; i < rows; ++i)
            file << fmt::format(
                "{{\"uid\": \"clip-{:07}\", \"caption\": \"Prompt {} of many: a barista says good "
                "morning while cups clink, steam rises, and rain runs down the window behind her; "
                "the camera stays close, the light is warm.\", \"length\": {}, \"source\": "
                "\"x\"}}\n",
                i, i, 2 + i % 9);
        std::string text =
            "version: 1\nname: scale\nmodel: {path: model}\n"
            "items: [{from: rows.jsonl, fields: {name: uid, prompt: caption, seconds: length}}]\n";
        if (cells > 1) {
            text += "sweep: {matrix: {shift: [";
            for (long i = 0; i < cells; ++i) text += fmt::format("{}{}", i > 0 ? ", " : "", i + 1);
            text += "]}}\n";
        }
        text += fmt::format("seeds: {{base: 7, samples: {}}}\n", samples);
        std::ofstream(folder / "m.yaml") << text;
    }
    const auto start = std::chrono::steady_clock::now();
    PlanOptions options;
    options.directory = folder / "run";
    options.calibration = find_calibration("h100", "bf16", "");
    const PlanResult made = make_plan(read_manifest(folder / "m.yaml"), options);
    const double planning =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    ::rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const ::timeval& time) {
        return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
    };
    const double cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    const double planned_megabytes = megabytes_at_most();
    const auto again = std::chrono::steady_clock::now();
    const std::size_t read = read_plan_index(options.directory).rows.size();
    const double reading =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - again).count();
    std::printf(
        "%ld rows x %ld cells x %ld samples: %llu items, %.1f s (%.1f s of CPU), %.0f MB; lock "
        "%.0f MB, read again in %.1f s\n",
        rows, cells, samples, static_cast<unsigned long long>(made.config.items), planning, cpu,
        planned_megabytes, static_cast<double>(made.config.lock_bytes) / 1e6, reading);
    const auto expected = static_cast<std::uint64_t>(rows * cells * samples);
    // On a busy machine the clock says more about the others: CPU time is held to the limit.
    const bool good = made.config.items == expected && read == expected &&
                      planned_megabytes < std::atof(argv[4]) && cpu < std::atof(argv[5]);
    return good ? 0 : 1;
}
