#include <algorithm>
#include <cstddef>
#include <iterator>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/node_builder.hpp"

namespace gallop {
namespace {

/// Hands nlohmann's parser one byte after the other and knows how many it has taken.
class Bytes {
public:
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;

    Bytes(const char* at, std::size_t& taken) : at_(at), taken_(&taken) {}
    reference operator*() const { return *at_; }
    Bytes& operator++() {
        ++at_;
        ++*taken_;
        return *this;
    }
    bool operator==(const Bytes& other) const { return at_ == other.at_; }
    bool operator!=(const Bytes& other) const { return at_ != other.at_; }

private:
    const char* at_;
    std::size_t* taken_;
};

/// The callbacks that nlohmann's event parser wants; its names are fixed. Each comes when the parser
/// has taken its token, or one byte more behind a number.
class Events {
public:
    using number_integer_t = nlohmann::json::number_integer_t;
    using number_unsigned_t = nlohmann::json::number_unsigned_t;
    using number_float_t = nlohmann::json::number_float_t;
    using string_t = nlohmann::json::string_t;
    using binary_t = nlohmann::json::binary_t;

    Events(std::string_view text, std::string_view file, const NoteMistake& duplicate)
        : text_(text), where_{std::string(file), 1, 1}, builder_(duplicate) {}

    Bytes begin() { return {text_.data(), taken_}; }
    Bytes end() { return {text_.data() + text_.size(), taken_}; }

    bool null() {
        builder_.null(token());
        return true;
    }
    bool boolean(bool value) { return scalar(value ? "true" : "false"); }
    bool number_integer(number_integer_t value) { return scalar(fmt::format("{}", value)); }
    bool number_unsigned(number_unsigned_t value) { return scalar(fmt::format("{}", value)); }
    bool number_float(number_float_t /*value*/, const string_t& as_written) {
        return scalar(as_written);
    }
    bool string(string_t& value) {
        builder_.scalar(token(), std::move(value), true);
        return true;
    }
    bool binary(binary_t& /*value*/) { return false; }  // JSON has none
    bool start_object(std::size_t /*size*/) { return open(Node::Kind::map); }
    bool key(string_t& value) { return string(value); }
    bool end_object() { return close(); }
    bool start_array(std::size_t /*size*/) { return open(Node::Kind::sequence); }
    bool end_array() { return close(); }
    bool parse_error(std::size_t byte, const std::string& last_token,
                     const nlohmann::json::exception& /*error*/) {
        detail::fail(detail::place_of(byte == 0 ? 0 : byte - 1, text_, where_.file),
                     fmt::format("not JSON at \"{}\"", last_token));
    }

    Node take() { return builder_.take(); }

private:
    bool scalar(std::string text) {
        builder_.scalar(token(), std::move(text), false);
        return true;
    }
    bool open(Node::Kind kind) {
        builder_.begin(kind, token());
        return true;
    }
    bool close() {
        builder_.end();
        return true;
    }

    /// Where the token begins that was taken just now: behind the one before it stand spaces, commas,
    /// colons and what closes collections.
    const Where& token() {
        const std::size_t start =
            std::min(text_.find_first_not_of(" \t\r\n,:]}", seen_), text_.size());
        for (; seen_ < start; ++seen_) {
            if (text_[seen_] != '\n') continue;
            ++where_.line;
            line_start_ = seen_ + 1;
        }
        where_.column = static_cast<int>(start - line_start_) + 1;
        seen_ = taken_ - (taken_ > 0 && text_[taken_ - 1] == '\n' ? 1 : 0);
        return where_;
    }

    std::string_view text_;
    Where where_;                 ///< of the latest token
    std::size_t taken_ = 0;       ///< bytes, by the parser
    std::size_t seen_ = 0;        ///< bytes that the next token does not begin in
    std::size_t line_start_ = 0;  ///< of the line in which the latest token begins
    detail::NodeBuilder builder_;
};

}  // namespace

Node parse_json(std::string_view text, std::string_view file_name, const NoteMistake& duplicate) {
    detail::check_text(text, file_name);
    Events events(text, file_name, duplicate);
    nlohmann::json::sax_parse(events.begin(), events.end(), &events);
    return events.take();
}

}  // namespace gallop
