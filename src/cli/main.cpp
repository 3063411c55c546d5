#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <new>
#include <system_error>

#include <fmt/format.h>

#include "cli/commands.hpp"
#include "core/check.hpp"
#include "core/device_error.hpp"
#include "core/file_errors.hpp"
#include "core/log.hpp"
#include "core/reader.hpp"

namespace gallop::cli {
namespace {

constexpr const char* overview =
    R"(gallop renders clips with picture and sound from text, images and driving sound.

  gallop check MANIFEST       lists every mistake of a manifest
  gallop plan MANIFEST        counts and predicts; freezes a run directory
  gallop explain MANIFEST NAME|ID  shows every value of an item and who set it
  gallop schema               prints the JSON Schema of manifests
  gallop run MANIFEST         renders a manifest's items, or goes on where an earlier run ended
  gallop launch -n N run …    starts several ranks of a run, with the MPI at hand
  gallop submit MANIFEST      plans, and hands a batch job to Slurm
  gallop status [RUNDIR]      says how a run stands, once or (--watch) until it ends
  gallop retry [RUNDIR]       gives failed items another chance
  gallop report [RUNDIR]      writes a page with progress, failures and a contact sheet
  gallop index [RUNDIR]       rebuilds index.jsonl from the journal
  gallop verify [RUNDIR]      checks every finished clip's files, digests and lengths
  gallop export FORMAT        finished clips as WebDataset shards, or as a CSV table
  gallop promote RUNDIR ID…   finishes chosen drafts at a higher resolution
  gallop decode FILE.h5       makes an MP4 of stored latents again
  gallop inspect FILE         says what a checkpoint, a latents file or a clip holds
  gallop probe COMPONENT      runs one component on one golden case and compares
  gallop fp8 MODEL            measures which linears may multiply in E4M3, and proposes model.fp8
  gallop make-model ARCH      writes a complete model of random weights
  gallop bench cpu            times the transformer on the CPU, side by side with PyTorch

  gallop COMMAND --help       all about a command
  gallop --version

Results go to stdout, logs to stderr. Exit codes: 0 done, 1 internal error, 2 the request is wrong,
3 finished, but items failed, 4 stopped early and resumable.
)";

const Command* const commands[] = {
    &check_command,   &plan_command,   &explain_command,    &schema_command,  &run_command,
    &launch_command,  &submit_command, &status_command,     &retry_command,   &index_command,
    &export_command,  &report_command, &verify_command,     &promote_command, &decode_command,
    &inspect_command, &probe_command,  &make_model_command, &bench_command,   &renderer_command,
    &fp8_command,
};

int dispatch(const Arguments& arguments) {
    if (arguments.empty() || arguments[0] == "--help" || arguments[0] == "-h" ||
        arguments[0] == "help") {
        fmt::print("{}", overview);
        return arguments.empty() ? wrong_request : done;
    }
    if (arguments[0] == "--version") {
        fmt::print("gallop {}\n", GALLOP_VERSION);
        return done;
    }
    std::vector<std::string> names;
    for (const Command* command : commands) {
        names.emplace_back(command->name);
        if (arguments[0] != command->name) continue;
        const Arguments rest(arguments.begin() + 1, arguments.end());
        for (const std::string& argument : rest) {
            if (argument != "--help" && argument != "-h") continue;
            fmt::print("{}", command->help);
            return done;
        }
        return command->run(rest);
    }
    const std::string near = nearest(arguments[0], names);
    throw_input_error("gallop: unknown command \"{}\"{}; gallop --help lists all", arguments[0],
                      near.empty() ? "" : fmt::format(" (did you mean {}?)", near));
}

/// Says what the standard library's file functions threw, or who writes to standard output. The exit
/// code.
int system_error(const std::system_error& failed) {
    const int code = failed.code().value();
    const auto* of_path = dynamic_cast<const std::filesystem::filesystem_error*>(&failed);
    const std::string text = of_path == nullptr ? failed.what()
                                                : fmt::format("{}: {}", of_path->path1().string(),
                                                              failed.code().message());
    if (is_access_errno(code)) {
        fmt::print(stderr, "{}\n", text);
        return wrong_request;
    }
    log_error("{}", text);
    return is_disk_errno(code) ? stopped_early : internal_error;
}

int guarded(const Arguments& arguments) {
    try {
        const int code = dispatch(arguments);
        if (std::fflush(stdout) != 0) throw_file_error("standard output", "cannot write", errno);
        return code;
    } catch (const InputError& wrong) {
        fmt::print(stderr, "{}\n", wrong.what());
        return wrong_request;
    } catch (const AccessError& refused) {
        fmt::print(stderr, "{}\n", refused.what());
        return wrong_request;
    } catch (const NoDeviceError& none) {
        fmt::print(stderr, "{}\n", none.what());
        return wrong_request;
    } catch (const DeviceError& lost) {
        log_error("{}", lost.what());
        return device_lost_status;
    } catch (const DiskError& refused) {
        log_error("{}", refused.what());
        return stopped_early;
    } catch (const std::system_error& failed) {
        return system_error(failed);
    } catch (const std::bad_alloc&) {
        log_error("out of host memory");
    } catch (const std::exception& failed) {
        log_error("{}", failed.what());
    }
    return internal_error;
}

}  // namespace
}  // namespace gallop::cli

int main(int argc, char** argv) { return gallop::cli::guarded({argv + 1, argv + argc}); }
