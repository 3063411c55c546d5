#include "tests/farm/fake_renderer.hpp"

#include <chrono>
#include <csignal>
#include <memory>
#include <thread>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/file_errors.hpp"
#include "farm/renderer.hpp"
#include "support/fake_stages.hpp"

namespace gallop::test {
namespace {

namespace fs = std::filesystem;

/// True the first time that it is asked in a run directory.
bool first_time(const fs::path& run, const std::string& what) {
    std::error_code failed;
    return fs::create_directory(run / ("did-" + what), failed);
}

void misbehave(const std::string& prompt, const fs::path& run, const GroupSeat& seat,
               const ProgressSink& progress) {
    const auto wants = [&](const char* what) {
        if (prompt.find(what) == std::string::npos) return false;
        return prompt.find("once") == std::string::npos || first_time(run, what);
    };
    if (wants("segfault")) ::raise(SIGSEGV);
    if (seat.rank == 1 && wants("member-dies")) ::_exit(9);
    if (wants("exit")) ::_exit(3);
    if (wants("hang")) rest(600'000);
    if (wants("freeze")) ::raise(SIGSTOP);
    if (wants("nonsense")) ::send(3, "hello", 5, 0);
    if (wants("no-memory")) throw OutOfMemoryError("no memory for 3 tensors");
    if (wants("nan")) throw BadOutputError("the base latent is not finite");
    if (wants("bad-luck")) throw Error("bad luck");
    if (wants("not-here")) throw InputError("there is no such picture");
    if (wants("slow"))
        for (int step = 0; step < 100; ++step) {
            progress({"base", step, 100});
            rest(20);
        }
}

/// A renderer that never finishes the files of its first item. With the second it does what `then` says.
int never_finish(const RendererOptions& options, const std::string& then) {
    const auto say = [&](const message::Message& message) {
        const std::string text = message::to_text(message);
        ::send(options.descriptor, text.data(), text.size(), MSG_NOSIGNAL);
    };
    say(message::Ready{options.slot, 0, 1, "fake"});
    for (bool first = true;;) {
        say(message::Pulse{0, "", 0, 0});
        pollfd end{options.descriptor, POLLIN, 0};
        if (::poll(&end, 1, 50) == 0) continue;
        char text[message::most_bytes];
        const ::ssize_t got = ::recv(options.descriptor, text, sizeof text, 0);
        if (got <= 0) return 0;
        const auto asked = message::parse({text, static_cast<std::size_t>(got)});
        const auto* lease = std::get_if<message::Lease>(&asked);
        if (lease == nullptr) return 0;
        const message::Task& task = lease->items[0];
        if (std::exchange(first, false)) {
            say(message::Finishing{task.item});
        } else if (then == "exit") {
            return 3;
        } else if (then == "run out of memory") {
            say(message::Failed{options.slot, task.item, task.id, task.attempt,
                                FailureKind::out_of_memory, "no memory", ""});
        } else if (then == "finish that, too") {
            say(message::Finishing{task.item});
        }
    }
}

}  // namespace

void rest(int milliseconds) {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

int be_a_renderer(const std::vector<std::string>& arguments) {
    RendererOptions options;
    options.beat_seconds = 0.05;
    for (std::size_t i = 0; i + 1 < arguments.size(); i += 2) {
        const std::string& value = arguments[i + 1];
        if (arguments[i] == "--run") options.directory = value;
        if (arguments[i] == "--slot") options.slot = std::stoi(value);
        if (arguments[i] == "--rank") options.seat.rank = std::stoi(value);
        if (arguments[i] == "--size") options.seat.size = std::stoi(value);
        if (arguments[i] == "--rendezvous") options.seat.rendezvous = value;
    }
    constexpr std::string_view unfinished = "never finish, then ";
    if (const std::string name = read_run_config(options.directory).name;
        name.starts_with(unfinished))
        return never_finish(options, name.substr(unfinished.size()));
    return run_renderer(options, [&](const RunConfig& config, const GroupSeat& seat) {
        if (config.name == "no-engine") throw InputError("there is no such model");
        // There at first, away the next time, then back.
        if (config.name == "engine-away" && !first_time(options.directory, "start") &&
            first_time(options.directory, "start-again"))
            throw InputError("there is no such model");
        if (config.name == "engine-lost" && !first_time(options.directory, "start"))
            throw InputError("there is no such model");
        if (seat.size > 1 && !fs::is_directory(seat.rendezvous)) throw Error("no rendezvous");
        Stages stages = fake_stages();
        const auto too_large = std::make_shared<bool>(false);
        stages.denoise = [denoise = stages.denoise, run = options.directory, seat, too_large](
                             const Item& item, const Conditioning& inputs,
                             const ProgressSink& progress) {
            misbehave(item.prompt, run, seat, progress);
            *too_large = item.prompt.find("fits-in-tiles") != std::string::npos;
            return denoise(item, inputs, progress);
        };
        stages.decode_video = [decode = stages.decode_video, too_large](
                                  const Tensor& latent, const PictureDecode& how,
                                  const FrameSink& sink, const ProgressSink& progress) {
            if (*too_large && !how.tiled) throw OutOfMemoryError("no memory for a picture");
            decode(latent, how, sink, progress);
        };
        const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
        const char* sums = std::getenv("NCCL_ALGO");
        return Engine{std::move(stages), std::string(visible == nullptr ? "fake" : visible) +
                                             (sums == nullptr ? "" : std::string(" ") + sums)};
    });
}

AgentOptions quick_agent(const std::filesystem::path& run, std::size_t devices) {
    AgentOptions options;
    options.renderers.directory = run;
    options.renderers.log_name = "renderer-test-0";
    options.renderers.arguments = {"renderer"};
    options.renderers.devices.resize(devices);
    options.renderers.silent_seconds = 2;
    options.renderers.stalled_seconds = 4;
    options.renderers.abandon_seconds = 1;
    options.beat_seconds = 0.05;
    return options;
}

}  // namespace gallop::test
