#include "core/check.hpp"

namespace gallop::detail {

void throw_check_failed(const char* file, int line, const char* condition,
                        std::string_view message) {
    std::string_view name = file;
    if (const auto at = name.rfind("/src/"); at != std::string_view::npos)
        name.remove_prefix(at + 1);
    throw Error(fmt::format("{} [{}:{}: {}]", message, name, line, condition));
}

}  // namespace gallop::detail
