#include "farm/renderer_process.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/check.hpp"
#include "core/device_error.hpp"
#include "core/file_errors.hpp"
#include "core/log.hpp"

extern char** environ;

namespace gallop {
namespace {

using Descriptor = Handle<int, detail::close_descriptor, -1>;

constexpr int child_descriptor = 3;

/// Processes that the kernel has ended on this machine because memory ran out. Source: proc(5),
/// /proc/vmstat; limits of a control group count, too.
std::uint64_t oom_kills() {
    std::ifstream counters("/proc/vmstat");
    std::string name;
    std::uint64_t value = 0;
    while (counters >> name >> value)
        if (name == "oom_kill") return value;
    return 0;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
    std::vector<char*> made;
    for (std::string& text : texts) made.push_back(text.data());
    made.push_back(nullptr);
    return made;
}

std::vector<std::string> environment_with(
    const std::vector<std::pair<std::string, std::string>>& changes) {
    std::vector<std::string> made;
    for (char** one = environ; *one != nullptr; ++one) {
        const std::string_view text(*one);
        const bool changed = std::any_of(changes.begin(), changes.end(), [&](const auto& change) {
            return text.starts_with(change.first + "=");
        });
        if (!changed) made.emplace_back(text);
    }
    for (const auto& [name, value] : changes) made.push_back(name + "=" + value);
    return made;
}

/// What the child does between fork and exec; only what is safe there.
[[noreturn]] void become(::pid_t parent, int socket, int log, char** arguments,
                         char** environment) {
    ::setpgid(0, 0);
    // The signal comes when the thread that started us ends; it may have ended already.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
    const int nothing = ::open("/dev/null", O_RDONLY);
    if (::dup2(nothing, STDIN_FILENO) < 0 || ::dup2(log, STDOUT_FILENO) < 0 ||
        ::dup2(log, STDERR_FILENO) < 0)
        ::_exit(127);
    // dup2 onto itself would leave the descriptor marked for closing.
    if (socket == child_descriptor ? ::fcntl(socket, F_SETFD, 0) < 0
                                   : ::dup2(socket, child_descriptor) < 0)
        ::_exit(127);
    ::close_range(child_descriptor + 1, ~0U, 0);
    ::execve("/proc/self/exe", arguments, environment);
    ::_exit(127);
}

}  // namespace

RendererProcess::RendererProcess(const RendererCommand& command) : oom_kills_(oom_kills()) {
    std::error_code failed;
    std::filesystem::create_directories(command.log.parent_path(), failed);
    const Descriptor log(
        ::open(command.log.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644));
    if (!log) throw_file_error(command.log, "cannot open", errno);
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
        throw Error(fmt::format("cannot make a socket pair: {}", std::strerror(errno)));
    socket_.reset(ends[0]);
    const Descriptor child_end(ends[1]);

    std::vector<std::string> arguments = {"gallop"};
    arguments.insert(arguments.end(), command.arguments.begin(), command.arguments.end());
    std::vector<std::string> environment = environment_with(command.environment);
    std::vector<char*> argument_pointers = pointers(arguments);
    std::vector<char*> environment_pointers = pointers(environment);
    const ::pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ < 0) throw Error(fmt::format("cannot start a renderer: {}", std::strerror(errno)));
    if (pid_ == 0)
        become(parent, child_end.get(), log.get(), argument_pointers.data(),
               environment_pointers.data());
    ::setpgid(pid_, pid_);  // whoever comes first; the child's group is there before we use it
}

RendererProcess::~RendererProcess() { end(); }

bool RendererProcess::send(const message::Message& message) {
    const std::string text = message::to_text(message);
    return ::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT) ==
           static_cast<::ssize_t>(text.size());
}

RendererProcess::Got RendererProcess::receive(message::Message& message) {
    char text[message::most_bytes + 1];
    const ::ssize_t got = ::recv(socket_.get(), text, sizeof text, MSG_DONTWAIT | MSG_TRUNC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Got::nothing;
    if (got <= 0) return Got::end;
    if (static_cast<std::size_t>(got) >= sizeof text)
        throw Error(fmt::format("message of {} bytes (at most {})", got, message::most_bytes));
    message = message::parse({text, static_cast<std::size_t>(got)});
    return Got::message;
}

Failure RendererProcess::end() {
    if (pid_ < 0) return {FailureKind::crash, "was ended before"};
    const ::pid_t pid = std::exchange(pid_, -1);
    // One whose socket has just closed is about to end by itself, and how it does is worth knowing.
    char byte = 0;
    const bool ending = ::recv(socket_.get(), &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
    // It stays a zombie, and its group's number ours, until the group is ended.
    const auto wait_for = [&](std::chrono::milliseconds patience) {
        const auto last = std::chrono::steady_clock::now() + patience;
        for (;;) {
            siginfo_t info{};
            if (::waitid(P_PID, static_cast<::id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) ==
                    0 &&
                info.si_pid == pid)
                return true;
            if (std::chrono::steady_clock::now() >= last) return false;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    };
    const bool by_itself = wait_for(std::chrono::milliseconds(ending ? 500 : 0));
    ::kill(-pid, SIGKILL);  // whatever it started goes, too
    socket_.reset();
    if (!by_itself) {
        // A process that waits for a dead disk or device may never end; it is not waited for.
        if (!wait_for(std::chrono::seconds(2)))
            log_warning("a renderer does not end after SIGKILL process={}", pid);
        ::waitpid(pid, nullptr, WNOHANG);
        return {FailureKind::crash, "was ended by its agent"};
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) {
        const int signal = WTERMSIG(status);
        if (signal == SIGKILL && oom_kills() > oom_kills_)
            return {FailureKind::out_of_memory,
                    "the kernel ended the renderer because host memory ran out"};
        return {FailureKind::crash, fmt::format("the renderer was ended by signal {} ({})", signal,
                                                ::strsignal(signal))};
    }
    const int code = WEXITSTATUS(status);
    return {FailureKind::crash,
            fmt::format("the renderer ended with exit code {}{}", code,
                        code == device_lost_status ? " (its device or its memory is lost)" : "")};
}

}  // namespace gallop
