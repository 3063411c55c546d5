#include "farm/launch.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

#include <fmt/ranges.h>

#include "core/check.hpp"
#include "core/handle.hpp"

namespace gallop {
namespace {

void close_pipe(FILE* pipe) { ::pclose(pipe); }

/// What a shell command prints on stdout; "" when it cannot be run.
std::string output_of(const char* command) {
    const Handle<FILE*, close_pipe> pipe(::popen(command, "re"));
    std::string text;
    std::array<char, 4096> part{};
    while (pipe) {
        const std::size_t got = std::fread(part.data(), 1, part.size(), pipe.get());
        if (got == 0) break;
        text.append(part.data(), got);
    }
    return text;
}

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        if (end > at) lines.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    return lines;
}

bool is_open_mpi(const LaunchSite& site, char major) {
    return site.mpirun.find(fmt::format("Open MPI) {}.", major)) != std::string::npos;
}

/// Without these a rank is bound to a core, and its renderers with it; a batch of ranks on one
/// machine is a test, which may have more of them than cores.
const std::vector<std::string> free_cores = {"--bind-to", "none"};

void append(std::vector<std::string>& to, const std::vector<std::string>& words) {
    to.insert(to.end(), words.begin(), words.end());
}

std::vector<std::string> mpirun_command(int ranks, const std::vector<std::string>& nodes,
                                        const LaunchSite& site) {
    std::vector<std::string> command = {"mpirun"};
    if (is_open_mpi(site, '4')) command.emplace_back("--enable-recovery");
    if (is_open_mpi(site, '5') && site.ulfm) append(command, {"--with-ft", "ulfm"});
    append(command, {"-n", std::to_string(ranks)});
    if (site.mpirun.find("Open MPI") == std::string::npos) return command;
    if (!nodes.empty()) {
        append(command, {"--host", fmt::format("{}", fmt::join(nodes, ","))});
        append(command, {"--map-by", "node"});
    }
    const std::size_t places = std::max<std::size_t>(nodes.size(), 1);
    if (static_cast<std::size_t>(ranks) > places) command.emplace_back("--oversubscribe");
    append(command, free_cores);
    return command;
}

std::vector<std::string> srun_command(const std::vector<std::string>& nodes) {
    const std::string count = std::to_string(nodes.size());
    return {"srun",
            "--mpi=pmix",
            "--kill-on-bad-exit=0",
            "--no-kill",
            "--overlap",
            "--cpu-bind=none",
            fmt::format("--nodelist={}", fmt::join(nodes, ",")),
            "--nodes=" + count,
            "--ntasks=" + count,
            "--ntasks-per-node=1"};
}

}  // namespace

LaunchSite look_around() {
    LaunchSite site;
    const std::vector<std::string> version = lines_of(output_of("mpirun --version 2>/dev/null"));
    if (!version.empty()) site.mpirun = version.front();
    if (is_open_mpi(site, '5'))
        site.ulfm =
            output_of("ompi_info 2>/dev/null").find("FT MPI support: yes") != std::string::npos;
    if (std::getenv("SLURM_JOB_ID") != nullptr) {
        site.nodes =
            lines_of(output_of("scontrol show hostnames \"$SLURM_JOB_NODELIST\" 2>/dev/null"));
        if (const char* node = std::getenv("SLURMD_NODENAME")) site.here = node;
        site.srun_pmix = output_of("srun --mpi=list 2>&1").find("pmix") != std::string::npos;
    }
    return site;
}

std::vector<std::string> command_of(const LaunchRequest& request, const LaunchSite& site) {
    const bool slurm = !site.nodes.empty();
    const std::vector<std::string>& nodes = request.nodes.empty() ? site.nodes : request.nodes;
    const int ranks =
        request.ranks > 0 ? request.ranks : std::max(1, static_cast<int>(nodes.size()));
    if (!slurm && request.with == Launcher::srun)
        throw_input_error("launch: srun needs a Slurm job (sbatch or salloc), and this is none");
    const bool only_here =
        nodes.empty() || (nodes.size() == 1 && !site.here.empty() && nodes.front() == site.here);
    if (request.with == Launcher::automatic && ranks == 1 && only_here) return request.program;

    // Where tasks share a node, Slurm ends the whole step with the first task that dies. An Open
    // MPI 5 rank under srun is ended by a dead peer's closed socket.
    const bool one_a_node = static_cast<std::size_t>(ranks) == nodes.size();
    const bool srun =
        request.with == Launcher::srun || (request.with == Launcher::automatic && slurm &&
                                           site.srun_pmix && one_a_node && !is_open_mpi(site, '5'));
    if (srun && !one_a_node)
        throw_input_error(
            "launch: {} ranks on {} nodes (srun starts one a node; mpirun takes any "
            "number: --with mpirun)",
            ranks, nodes.size());
    if (srun && !site.srun_pmix)
        throw_input_error(
            "launch: `srun --mpi=list` does not name pmix (needed to start MPI ranks "
            "with srun; --with mpirun does without it, `gallop run --attach` without "
            "MPI)");
    if (!srun && site.mpirun.empty())
        throw_input_error(
            "launch: no mpirun on the PATH (needed for {} ranks; processes started "
            "in any other way can share a planned run: gallop run --attach RUNDIR)",
            ranks);
    std::vector<std::string> command =
        srun ? srun_command(nodes) : mpirun_command(ranks, nodes, site);
    append(command, request.program);
    return command;
}

std::string shell_text(const std::vector<std::string>& command) {
    std::string text;
    for (const std::string& word : command) {
        if (!text.empty()) text += ' ';
        const bool plain = !word.empty() && word.find_first_not_of(
                                                "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWX"
                                                "YZ0123456789_-+=:,./@%^") == std::string::npos;
        if (plain) {
            text += word;
            continue;
        }
        text += '\'';
        for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
        text += '\'';
    }
    return text;
}

}  // namespace gallop
