#include "core/node_builder.hpp"

#include <algorithm>
#include <cstdint>

#include <fmt/format.h>

#include "core/check.hpp"
#include "core/scalar.hpp"
#include "core/utf8.hpp"

namespace gallop::detail {
namespace {

std::size_t node_count(const Node& node) {
    std::size_t nodes = 1;
    for (const Node& item : node.items) nodes += node_count(item);
    for (const auto& [key, value] : node.entries) nodes += 1 + node_count(value);
    return nodes;
}

std::size_t depth_of(const Node& node) {
    std::size_t below = 0;
    for (const Node& item : node.items) below = std::max(below, depth_of(item));
    for (const auto& [key, value] : node.entries) below = std::max(below, depth_of(value));
    return below + (node.kind == Node::Kind::sequence || node.kind == Node::Kind::map ? 1 : 0);
}

}  // namespace

void fail(const Where& where, std::string_view text) {
    throw InputError(fmt::format("{}: {}", to_string(where), text));
}

Where place_of(std::size_t byte, std::string_view text, std::string_view file) {
    const std::string_view before = text.substr(0, byte);
    const std::size_t line_start = before.rfind('\n') + 1;  // npos + 1 is 0
    return {std::string(file), static_cast<int>(std::count(before.begin(), before.end(), '\n')) + 1,
            static_cast<int>(before.size() - line_start) + 1};
}

void check_text(std::string_view text, std::string_view file) {
    for (std::size_t at = 0; at < text.size();) {
        const auto byte = static_cast<std::uint8_t>(text[at]);
        const std::size_t length = utf8_length(text.substr(at));
        if (length == 0)
            fail(place_of(at, text, file), fmt::format("byte 0x{:02x} is not UTF-8", byte));
        // yaml-cpp takes U+0004 for the end of the file.
        if ((byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7f)
            fail(place_of(at, text, file), fmt::format("control character U+{:04X}", byte));
        at += length;
    }
}

void NodeBuilder::null(Where where, Anchor anchor) {
    count(1, where);
    Node node;
    node.where = std::move(where);
    place(std::move(node), anchor);
}

void NodeBuilder::scalar(Where where, std::string text, bool quoted, Anchor anchor) {
    count(1, where);
    // An escape can bring in what check_text keeps out; a zero would cut a path short.
    if (text.find('\0') != std::string::npos) fail(where, "text holds the character U+0000");
    Node node;
    node.kind = Node::Kind::scalar;
    node.scalar = std::move(text);
    node.quoted = quoted;
    node.where = std::move(where);
    place(std::move(node), anchor);
}

void NodeBuilder::begin(Node::Kind kind, Where where, Anchor anchor) {
    count(1, where);
    if (open_.size() >= max_depth)
        fail(where, fmt::format("nested too deeply (at most {} levels)", max_depth));
    Open open{{}, anchor, {}, false, {}};
    open.node.kind = kind;
    open.node.where = std::move(where);
    open_.push_back(std::move(open));
}

void NodeBuilder::end() {
    CHECK(!open_.empty(), "end of a collection that was not begun");
    Open done = std::move(open_.back());
    open_.pop_back();
    place(std::move(done.node), done.anchor);
}

void NodeBuilder::alias(const Where& where, Anchor anchor) {
    const auto found = named_.find(anchor);
    if (found == named_.end()) fail(where, "an alias inside of what it stands for");
    count(node_count(found->second), where);
    if (open_.size() + depth_of(found->second) > max_depth)
        fail(where, fmt::format("nested too deeply (at most {} levels)", max_depth));
    place(found->second, 0);
}

void NodeBuilder::count(std::size_t nodes, const Where& where) {
    nodes_ += nodes;
    if (nodes_ > max_nodes)
        fail(where, fmt::format("too many values (at most {}, aliases expanded)", max_nodes));
}

void NodeBuilder::place(Node node, Anchor anchor) {
    if (anchor != 0) {
        count(node_count(node), node.where);  // the copy kept for aliases
        named_.insert_or_assign(anchor, node);
    }
    if (open_.empty()) {
        root_ = std::move(node);
        return;
    }
    Open& parent = open_.back();
    if (parent.node.kind == Node::Kind::sequence) {
        parent.node.items.push_back(std::move(node));
    } else if (parent.key) {
        if (node.kind == Node::Kind::null) node.where = parent.key->where;
        if (!parent.again) parent.node.entries.push_back({std::move(*parent.key), std::move(node)});
        parent.key.reset();
    } else {
        if (node.kind != Node::Kind::scalar)
            fail(node.where, "a key is not plain text (must be a word, or text in quotes)");
        parent.again = !parent.keys.insert(node.scalar).second;
        if (parent.again) {
            const std::string text = fmt::format("duplicate key \"{}\"", shortened(node.scalar));
            if (!duplicate_) fail(node.where, text);
            duplicate_(node.where, text);
        }
        parent.key = std::move(node);
    }
}

}  // namespace gallop::detail
