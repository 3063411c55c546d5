#include "farm/failure.hpp"

#include <algorithm>
#include <array>
#include <new>
#include <utility>

#include <fmt/format.h>

#include "core/device_error.hpp"
#include "core/file_errors.hpp"
#include "core/utf8.hpp"

namespace gallop {
namespace {

constexpr std::array<std::pair<FailureKind, std::string_view>, 8> names = {{
    {FailureKind::error, "error"},
    {FailureKind::input, "input"},
    {FailureKind::out_of_memory, "out_of_memory"},
    {FailureKind::crash, "crash"},
    {FailureKind::hung, "hung"},
    {FailureKind::bad_output, "bad_output"},
    {FailureKind::disk, "disk"},
    {FailureKind::lost, "lost"},
}};

constexpr std::size_t most_error_bytes = 1500;

Failure described(FailureKind kind, std::string_view text) {
    return {kind, shortened(text, most_error_bytes)};
}

}  // namespace

std::string_view name_of(FailureKind kind) {
    for (const auto& [known, name] : names)
        if (known == kind) return name;
    return "error";
}

std::optional<FailureKind> failure_kind(std::string_view name) {
    for (const auto& [kind, known] : names)
        if (known == name) return kind;
    return {};
}

std::string shortened(std::string_view text, std::size_t bytes) {
    static constexpr std::string_view ellipsis = "…";
    const std::size_t room = bytes - std::min(bytes, ellipsis.size());
    std::string made;
    std::size_t kept = 0;  // of what was made, if it must be cut
    for (std::size_t at = 0; at < text.size() && made.size() <= bytes;) {
        const std::size_t length = utf8_length(text.substr(at));
        const bool control =
            length == 1 && text[at] != '\n' && static_cast<unsigned char>(text[at]) < 0x20;
        made += length == 0 ? "?" : control ? " " : text.substr(at, length);
        if (made.size() <= room) kept = made.size();
        at += std::max<std::size_t>(length, 1);
    }
    if (made.size() <= bytes) return made;
    made.resize(kept);
    return bytes < ellipsis.size() ? made : made.append(ellipsis);
}

std::string first_line_of(std::string_view text) {
    while (text.ends_with('\n')) text.remove_suffix(1);
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return std::string(text);
    const auto more = std::count(text.begin() + static_cast<std::ptrdiff_t>(end), text.end(), '\n');
    return fmt::format("{} (and {} more line{})", text.substr(0, end), more, more == 1 ? "" : "s");
}

Failure failure_of(std::exception_ptr thrown) {
    try {
        std::rethrow_exception(std::move(thrown));
    } catch (const InputError& wrong) {
        return described(FailureKind::input, wrong.what());
    } catch (const OutOfMemoryError& failed) {
        return described(FailureKind::out_of_memory, failed.what());
    } catch (const DiskError& failed) {
        return described(FailureKind::disk, failed.what());
    } catch (const BadOutputError& failed) {
        return described(FailureKind::bad_output, failed.what());
    } catch (const DeviceError& failed) {
        return described(FailureKind::crash, failed.what());
    } catch (const std::bad_alloc&) {
        return described(FailureKind::out_of_memory, "out of host memory");
    } catch (const std::exception& failed) {
        return described(FailureKind::error, failed.what());
    } catch (...) {
        return described(FailureKind::error, "an exception of an unknown kind");
    }
}

Failure failure_to_begin(std::exception_ptr thrown) {
    try {
        std::rethrow_exception(thrown);
    } catch (const BusyDeviceError&) {
    } catch (const NoDeviceError& none) {
        return described(FailureKind::input, none.what());
    } catch (...) {
    }
    return failure_of(std::move(thrown));
}

}  // namespace gallop
