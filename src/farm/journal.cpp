#include "farm/journal.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/check.hpp"
#include "core/file_errors.hpp"
#include "core/log.hpp"
#include "farm/failure.hpp"
#include "media/digest.hpp"

namespace gallop {
namespace {

using Json = nlohmann::json;

constexpr std::string_view sum_key = ",\"sum\":\"";
constexpr std::size_t sum_digits = 16;
constexpr std::chrono::milliseconds gathering{10};  // lines, before they are written

std::string sum_of(std::string_view body) { return digest_text(body).substr(0, sum_digits); }

/// The event of one line without its newline; null when the sum is wrong.
Json event_of(std::string_view line) {
    const std::size_t tail = sum_key.size() + sum_digits + 2;  // ,"sum":"…"}
    if (line.size() <= tail || !line.ends_with("\"}")) return {};
    const std::string_view body = line.substr(0, line.size() - tail);
    const std::string_view rest = line.substr(body.size());
    if (!rest.starts_with(sum_key) || rest.substr(sum_key.size(), sum_digits) != sum_of(body))
        return {};
    Json event = Json::parse(std::string(body) + "}", nullptr, false);
    return event.is_object() ? event : Json();
}

/// Where the last complete line of a file of so many bytes ends.
std::uint64_t end_of_lines(int descriptor, std::uint64_t bytes, const std::filesystem::path& path) {
    std::array<char, 1 << 16> piece{};
    for (std::uint64_t end = bytes; end > 0;) {
        const std::size_t wanted = std::min<std::uint64_t>(end, piece.size());
        const ::ssize_t got =
            ::pread(descriptor, piece.data(), wanted, static_cast<::off_t>(end - wanted));
        if (got < 0) throw_file_error(path, "read failed", errno);
        const std::size_t newline =
            std::string_view(piece.data(), static_cast<std::size_t>(got)).rfind('\n');
        if (newline != std::string_view::npos) return end - wanted + newline + 1;
        end -= wanted;
    }
    return 0;
}

}  // namespace

std::string journal_line(const Json& event) {
    CHECK(event.is_object() && !event.empty(), "a journal's event is an object with members");
    std::string body = event.dump(-1, ' ', false, Json::error_handler_t::replace);
    body.pop_back();
    return fmt::format("{}{}{}\"}}\n", body, sum_key, sum_of(body));
}

JournalContent read_journal(std::string_view text) {
    JournalContent content;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = text.find('\n', at);
        if (end == std::string_view::npos) {
            content.truncated = true;
            break;
        }
        Json event = event_of(text.substr(at, end - at));
        if (event.is_null())
            ++content.damaged_lines;
        else
            content.events.push_back(std::move(event));
        at = content.whole_bytes = end + 1;
    }
    return content;
}

Journal::Journal(const std::filesystem::path& path)
    : path_(path),
      descriptor_(::open(path.c_str(), O_CREAT | O_RDWR | O_APPEND | O_CLOEXEC, 0644)) {
    if (!descriptor_) throw_file_error(path, "cannot open", errno);
    struct stat info {};
    if (::fstat(descriptor_.get(), &info) != 0) throw_file_error(path, "cannot be examined", errno);
    const auto size = static_cast<std::uint64_t>(info.st_size);
    bytes_ = end_of_lines(descriptor_.get(), size, path);
    if (bytes_ < size) {
        log_warning("journal's truncated last line dropped path={}", path.string());
        if (::ftruncate(descriptor_.get(), static_cast<::off_t>(bytes_)) != 0)
            throw_file_error(path, "cannot truncate", errno);
    }
    if (size == 0) sync_folder(path.parent_path());  // or a crash may lose its very name
    writer_ = std::thread([this] { write_lines(); });
}

Journal::~Journal() {
    {
        const std::lock_guard lock(mutex_);
        closing_ = true;
    }
    changed_.notify_all();
    hurry_.notify_all();
    writer_.join();
}

void Journal::append(const Json& event) {
    const std::string line = journal_line(event);
    bool first = false;
    {
        const std::lock_guard lock(mutex_);
        first = waiting_.empty();
        waiting_ += line;
    }
    if (first) changed_.notify_all();
}

void Journal::flush() {
    std::unique_lock lock(mutex_);
    ++hurried_;
    hurry_.notify_all();
    changed_.wait(lock, [this] { return failure_ || (waiting_.empty() && !writing_); });
    --hurried_;
    if (failure_) std::rethrow_exception(failure_);
}

std::string Journal::trouble() const {
    const std::lock_guard lock(mutex_);
    return failure_ ? failure_of(failure_).error : std::string();
}

void Journal::write_lines() {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [this] { return closing_ || !waiting_.empty(); });
        if (waiting_.empty()) return;
        // Lines come in groups, and a shared disk is spared what one fsync can do.
        hurry_.wait_for(lock, gathering, [this] { return closing_ || hurried_ > 0; });
        const std::string lines = std::exchange(waiting_, {});
        writing_ = true;
        lock.unlock();
        std::exception_ptr failure;
        try {
            write_all(descriptor_.get(), lines, path_);
            if (::fsync(descriptor_.get()) != 0) throw_file_error(path_, "fsync failed", errno);
            bytes_ += lines.size();
        } catch (...) {
            failure = std::current_exception();
            // Nobody may believe a part of it. What cannot be cut off is a truncated line, or whole
            // lines that are true.
            if (::ftruncate(descriptor_.get(), static_cast<::off_t>(bytes_)) != 0)
                log_error("{}: cannot be cut back: {}", path_.string(), std::strerror(errno));
        }
        lock.lock();
        writing_ = false;
        if (failure) {
            failure_ = failure;
            changed_.notify_all();
            return;
        }
        changed_.notify_all();
    }
}

}  // namespace gallop
