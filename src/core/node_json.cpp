#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/node_builder.hpp"

namespace gallop {
namespace {

/// The callbacks that nlohmann's event parser wants; its names are fixed.
class Events {
public:
    using number_integer_t = nlohmann::json::number_integer_t;
    using number_unsigned_t = nlohmann::json::number_unsigned_t;
    using number_float_t = nlohmann::json::number_float_t;
    using string_t = nlohmann::json::string_t;
    using binary_t = nlohmann::json::binary_t;

    Events(std::string_view text, std::string_view file) : text_(text), where_{std::string(file)} {}

    bool null() {
        builder_.null(where_);
        return true;
    }
    bool boolean(bool value) { return scalar(value ? "true" : "false"); }
    bool number_integer(number_integer_t value) { return scalar(fmt::format("{}", value)); }
    bool number_unsigned(number_unsigned_t value) { return scalar(fmt::format("{}", value)); }
    bool number_float(number_float_t /*value*/, const string_t& as_written) {
        return scalar(as_written);
    }
    bool string(string_t& value) {
        builder_.scalar(where_, std::move(value), true);
        return true;
    }
    bool binary(binary_t& /*value*/) { return false; }  // JSON has none
    bool start_object(std::size_t /*size*/) { return begin(Node::Kind::map); }
    bool key(string_t& value) { return string(value); }
    bool end_object() { return end(); }
    bool start_array(std::size_t /*size*/) { return begin(Node::Kind::sequence); }
    bool end_array() { return end(); }
    bool parse_error(std::size_t byte, const std::string& last_token,
                     const nlohmann::json::exception& /*error*/) {
        detail::fail(detail::place_of(byte == 0 ? 0 : byte - 1, text_, where_.file),
                     fmt::format("not JSON at \"{}\"", last_token));
    }

    Node take() { return builder_.take(); }

private:
    bool scalar(std::string text) {
        builder_.scalar(where_, std::move(text), false);
        return true;
    }
    bool begin(Node::Kind kind) {
        builder_.begin(kind, where_);
        return true;
    }
    bool end() {
        builder_.end();
        return true;
    }

    std::string_view text_;
    Where where_;
    detail::NodeBuilder builder_;
};

}  // namespace

Node parse_json(std::string_view text, std::string_view file_name) {
    detail::check_text(text, file_name);
    Events events(text, file_name);
    nlohmann::json::sax_parse(text.begin(), text.end(), &events);
    return events.take();
}

}  // namespace gallop
