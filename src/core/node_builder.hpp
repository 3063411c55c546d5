#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/node.hpp"

namespace gallop::detail {

/// Throws InputError when `text` is not UTF-8 or holds a control character other than tab and line
/// end.
void check_text(std::string_view text, std::string_view file);

/// Line and column of a byte of `text`.
Where place_of(std::size_t byte, std::string_view text, std::string_view file);

/// Throws InputError "file:line:column: text".
[[noreturn]] void fail(const Where& where, std::string_view text);

/// Makes a Node from a parser's events and holds it to the bounds that `parse_yaml` promises, while
/// parsing: a hostile text is refused before it has cost much.
class NodeBuilder {
public:
    static constexpr std::size_t max_depth = 64;
    static constexpr std::size_t max_nodes = 1'000'000;
    /// Names a node for later aliases; 0: not named.
    using Anchor = std::size_t;

    /// `duplicate`: as of `parse_yaml`; it must outlive the builder.
    explicit NodeBuilder(const NoteMistake& duplicate) : duplicate_(duplicate) {}

    void null(Where where, Anchor anchor = 0);
    void scalar(Where where, std::string text, bool quoted, Anchor anchor = 0);
    void begin(Node::Kind kind, Where where, Anchor anchor = 0);
    void end();
    void alias(const Where& where, Anchor anchor);
    /// The finished root; null when there were no events.
    Node take() { return std::move(root_); }

private:
    struct Open {
        Node node;
        Anchor anchor;
        std::optional<Node> key;               ///< waits for its value
        bool again = false;                    ///< the key was there before: its value is dropped
        std::unordered_set<std::string> keys;  ///< so far
    };
    void count(std::size_t nodes, const Where& where);
    void place(Node node, Anchor anchor);

    const NoteMistake& duplicate_;
    Node root_;
    std::vector<Open> open_;
    std::unordered_map<Anchor, Node> named_;
    std::size_t nodes_ = 0;
};

}  // namespace gallop::detail
