// A message between processes: what is read says the same when it is written and read again.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/error.hpp"
#include "farm/messages.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        const std::string_view text(reinterpret_cast<const char*>(data), size);
        const std::string once = gallop::message::to_text(gallop::message::parse(text));
        if (gallop::message::to_text(gallop::message::parse(once)) != once) std::abort();
    } catch (const gallop::Error&) {
    }
    return 0;
}
