#include <sstream>
#include <utility>

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include "core/node_builder.hpp"

namespace gallop {
namespace {

/// yaml-cpp's marks count lines and columns from 0.
Where to_where(const YAML::Mark& mark, const std::string& file) {
    if (mark.is_null()) return {file, 0, 0};
    return {file, mark.line + 1, mark.column + 1};
}

class Events final : public YAML::EventHandler {
public:
    Events(std::string file, const NoteMistake& duplicate)
        : file_(std::move(file)), builder_(duplicate) {}

    void OnDocumentStart(const YAML::Mark& mark) override {
        if (documents_++ > 0)
            detail::fail(to_where(mark, file_), "a second document (must be one)");
    }
    void OnDocumentEnd() override {}
    void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
        builder_.null(to_where(mark, file_), anchor);
    }
    void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
        builder_.alias(to_where(mark, file_), anchor);
    }
    void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  const std::string& value) override {
        const bool text = tag == "!" || tag == "tag:yaml.org,2002:str";
        if (!text) check_tag(mark, tag);
        builder_.scalar(to_where(mark, file_), value, text, anchor);
    }
    void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                         YAML::EmitterStyle::value /*style*/) override {
        check_tag(mark, tag);
        builder_.begin(Node::Kind::sequence, to_where(mark, file_), anchor);
    }
    void OnSequenceEnd() override { builder_.end(); }
    void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                    YAML::EmitterStyle::value /*style*/) override {
        check_tag(mark, tag);
        builder_.begin(Node::Kind::map, to_where(mark, file_), anchor);
    }
    void OnMapEnd() override { builder_.end(); }

    Node take() { return builder_.take(); }

private:
    void check_tag(const YAML::Mark& mark, const std::string& tag) const {
        if (!tag.empty() && tag != "?")
            detail::fail(to_where(mark, file_), "tag \"" + tag + "\" (values must be plain)");
    }

    std::string file_;
    detail::NodeBuilder builder_;
    int documents_ = 0;
};

}  // namespace

Node parse_yaml(std::string_view text, std::string_view file_name, const NoteMistake& duplicate) {
    detail::check_text(text, file_name);
    const std::string file(file_name);
    // yaml-cpp lets quotes stay open at the end of the text; the end marker makes it notice.
    std::string marked(text);
    marked += text.empty() || text.ends_with('\n') ? "...\n" : "\n...\n";
    std::istringstream stream(std::move(marked));
    Events events(file, duplicate);
    try {
        YAML::Parser parser(stream);
        while (parser.HandleNextDocument(events)) {
        }
    } catch (const YAML::Exception& error) {
        if (error.mark.pos >= static_cast<int>(text.size()))
            detail::fail(detail::place_of(text.size(), text, file),
                         "the text ends too early: something is still open");
        detail::fail(to_where(error.mark, file), error.msg);
    }
    return events.take();
}

}  // namespace gallop
