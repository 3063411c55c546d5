#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

#include "core/files.hpp"
#include "core/handle.hpp"
#include "farm/failure.hpp"
#include "farm/messages.hpp"

namespace gallop {

/// How a renderer is started: this very program, other arguments.
struct RendererCommand {
    std::vector<std::string> arguments;                            ///< behind the program's name
    std::vector<std::pair<std::string, std::string>> environment;  ///< over the agent's own
    std::filesystem::path log;                                     ///< gets stdout and stderr
};

/// A child process and the agent's end of its socket, which is descriptor 3 in the child. The child
/// leads a process group of its own and is ended by the kernel when the agent's main thread is.
class RendererProcess {
public:
    /// Starts it. Throws Error.
    explicit RendererProcess(const RendererCommand& command);
    RendererProcess(const RendererProcess&) = delete;
    RendererProcess& operator=(const RendererProcess&) = delete;
    /// Ends it, as `end` does.
    ~RendererProcess();

    int descriptor() const { return socket_.get(); }
    ::pid_t pid() const { return pid_; }

    /// False when it takes no messages any more: it is gone, or has not read for long.
    bool send(const message::Message& message);

    enum class Got { message, nothing, end };
    /// The next message. Throws Error when what it said is no message.
    Got receive(message::Message& message);

    /// What became of it: "ended by signal 11 (Segmentation fault)". Kind: crash, or out_of_memory
    /// when the kernel ended it for that. Kills it and everything it started if it still runs.
    Failure end();

private:
    ::pid_t pid_ = -1;
    Handle<int, detail::close_descriptor, -1> socket_;
    std::uint64_t oom_kills_ = 0;  ///< on this machine, when it was started
};

}  // namespace gallop
