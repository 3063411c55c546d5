#include "farm/journal.hpp"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "core/check.hpp"
#include "core/log.hpp"
#include "media/digest.hpp"

namespace gallop {
namespace {

using Json = nlohmann::json;

constexpr std::string_view sum_key = ",\"sum\":\"";
constexpr std::size_t sum_digits = 16;

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
    if (!descriptor_)
        throw Error(fmt::format("{}: cannot open: {}", path.string(), std::strerror(errno)));
    JournalContent content = read_journal(read_text(path, std::uint64_t{1} << 36));
    if (content.truncated) {
        log_warning("journal's truncated last line dropped path={}", path.string());
        if (::ftruncate(descriptor_.get(), static_cast<::off_t>(content.whole_bytes)) != 0)
            throw Error(
                fmt::format("{}: cannot truncate: {}", path.string(), std::strerror(errno)));
    }
    if (content.damaged_lines > 0)
        log_warning("journal's damaged lines ignored path={} lines={}", path.string(),
                    content.damaged_lines);
    events_ = std::move(content.events);
}

void Journal::append(Json event) {
    const std::string line = journal_line(event);
    std::string_view rest = line;
    while (!rest.empty()) {
        const ::ssize_t put = ::write(descriptor_.get(), rest.data(), rest.size());
        if (put < 0 && errno == EINTR) continue;
        if (put < 0)
            throw Error(fmt::format("{}: write failed: {}", path_.string(), std::strerror(errno)));
        rest.remove_prefix(static_cast<std::size_t>(put));
    }
    if (::fsync(descriptor_.get()) != 0)
        throw Error(fmt::format("{}: fsync failed: {}", path_.string(), std::strerror(errno)));
    events_.push_back(std::move(event));
}

}  // namespace gallop
