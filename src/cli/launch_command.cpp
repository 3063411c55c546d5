#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <unistd.h>

#include "cli/commands.hpp"
#include "core/check.hpp"
#include "farm/launch.hpp"

namespace gallop::cli {
namespace {

constexpr const char* launch_help = R"(gallop launch [-n N] [options] COMMAND [ARGUMENT...]

Starts N ranks of `gallop COMMAND ARGUMENT...` such that the others go on when one dies, with the MPI at
hand: Open MPI 4 (mpirun --enable-recovery), Open MPI 5 (mpirun --with-ft ulfm), inside a Slurm job srun
--mpi=pmix with one rank a node. One rank needs no MPI. Everything from COMMAND on is the ranks'.

  -n N                    ranks (default: one a node of the Slurm job, else 1)
  --nodes A,B,...         on these nodes (default: all of the Slurm job, else this machine)
  --with auto|srun|mpirun (default: auto)
  --program WORDS         what starts gallop on a node (default: this program), split at spaces, for example
                          "apptainer exec --nv gallop.sif gallop"
  --print                 prints the command and does not execute it

  gallop launch -n 4 run jobs/cafe.yaml
)";

Launcher launcher_of(const std::string& name) {
    if (name == "auto") return Launcher::automatic;
    if (name == "srun") return Launcher::srun;
    if (name == "mpirun") return Launcher::mpirun;
    throw_input_error("gallop launch: --with is \"{}\" (auto, srun, mpirun)", name);
}

std::vector<std::string> split(const std::string& text, char at) {
    std::vector<std::string> parts;
    for (std::size_t from = 0; from <= text.size();) {
        const std::size_t end = std::min(text.find(at, from), text.size());
        if (end > from) parts.push_back(text.substr(from, end - from));
        from = end + 1;
    }
    return parts;
}

std::string own_path() {
    std::string path(4096, '\0');
    const ::ssize_t length = ::readlink("/proc/self/exe", path.data(), path.size());
    if (length <= 0) throw Error("the program's own path cannot be read from /proc/self/exe");
    path.resize(static_cast<std::size_t>(length));
    return path;
}

[[noreturn]] void execute(const std::vector<std::string>& command) {
    std::vector<char*> words;
    for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    ::execvp(words[0], words.data());
    throw Error(fmt::format("{}: cannot be executed: {}", command[0], std::strerror(errno)));
}

int launch(const Arguments& arguments) {
    // Options end where the ranks' command begins.
    std::size_t own = 0;
    const auto stands_alone = [](const std::string& word) {
        return word == "--print" || word.find('=') != std::string::npos ||
               (word.starts_with("-n") && word.size() > 2);
    };
    while (own < arguments.size() && arguments[own].starts_with('-'))
        own += stands_alone(arguments[own]) ? 1 : 2;
    own = std::min(own, arguments.size());
    po::options_description options;
    options.add_options()(",n", po::value<int>())("nodes", po::value<std::string>())(
        "with", po::value<std::string>()->default_value("auto"))(
        "program", po::value<std::string>())("print", "");
    const auto middle = arguments.begin() + static_cast<std::ptrdiff_t>(own);
    const Values values = parse("launch", {arguments.begin(), middle}, options, {});
    if (middle == arguments.end())
        throw_input_error(
            "gallop launch: no command (for example: gallop launch -n 4 run "
            "jobs/cafe.yaml)");
    LaunchRequest request;
    if (values.contains("-n")) {
        request.ranks = values["-n"].as<int>();
        if (request.ranks < 1 || request.ranks > 100000)
            throw_input_error("gallop launch: -n is {} (1 to 100000)", request.ranks);
    }
    request.nodes = split(text_of(values, "nodes"), ',');
    request.with = launcher_of(text_of(values, "with"));
    request.program = values.contains("program") ? split(text_of(values, "program"), ' ')
                                                 : std::vector<std::string>{own_path()};
    if (request.program.empty()) throw_input_error("gallop launch: --program is empty");
    request.program.insert(request.program.end(), middle, arguments.end());
    const std::vector<std::string> command = command_of(request, look_around());
    if (!values.contains("print")) execute(command);
    fmt::print("{}\n", shell_text(command));
    return done;
}

}  // namespace

const Command launch_command = {"launch", launch_help, launch};

}  // namespace gallop::cli
