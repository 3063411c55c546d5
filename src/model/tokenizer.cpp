#include "model/tokenizer.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <functional>
#include <optional>
#include <unordered_map>
#include <utility>

#include <nlohmann/json.hpp>
#include <sentencepiece_processor.h>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/reader.hpp"
#include "core/utf8.hpp"
#include "model/piece_table.hpp"
#include "model/presence.hpp"

namespace gallop {
namespace {

constexpr std::size_t max_text_bytes = std::size_t{1} << 20;
constexpr std::size_t max_word_bytes = 512;
constexpr std::size_t max_added = 16384;
constexpr std::int32_t max_id = (std::int32_t{1} << 24) - 1;

/// A special token is written as its word or as a map with a `content`.
std::string read_special(Reader& reader, std::string_view key) {
    const Node* node = reader.node(key);
    if (node == nullptr || node->kind == Node::Kind::null) return {};
    if (node->kind == Node::Kind::scalar) return node->scalar;
    Reader token = reader.child(key);
    token.ignore_unknown();
    token.require("content");
    return token.get("content", std::string{});
}

void read_added(Reader& token, std::int32_t id, TokenizerConfig& config) {
    token.ignore_unknown();
    token.require("content");
    std::string content = token.get("content", std::string{});
    if (token.has("content") && (content.empty() || content.size() > max_word_bytes))
        token.problem("content", fmt::format("content has {} bytes (must have 1 to {})",
                                             content.size(), max_word_bytes));
    for (const char* flag : {"lstrip", "rstrip", "single_word"})
        if (token.get(flag, false))
            token.problem(
                flag,
                fmt::format("{} is true (added tokens of Gemma's tokenizers match everywhere)",
                            flag));
    config.added.push_back({std::move(content), id});
}

void read_added_decoder(Reader& reader, TokenizerConfig& config) {
    const Node* map = reader.node("added_tokens_decoder");
    if (map == nullptr || map->kind == Node::Kind::null) return;
    Reader decoder = reader.child("added_tokens_decoder");
    if (map->kind != Node::Kind::map) return;  // the child has noted it
    if (map->entries.size() > max_added)
        return reader.problem("added_tokens_decoder",
                              fmt::format("added_tokens_decoder has {} entries (at most {})",
                                          map->entries.size(), max_added));
    for (const auto& [key, value] : map->entries) {
        std::int32_t id = -1;
        const char* end = key.scalar.data() + key.scalar.size();
        const auto [stop, error] = std::from_chars(key.scalar.data(), end, id);
        if (error != std::errc{} || stop != end || id < 0 || id > max_id) {
            decoder.problem(key.scalar, fmt::format("\"{}\" is not a token id", key.scalar));
            continue;
        }
        Reader token = decoder.child(key.scalar);
        read_added(token, id, config);
    }
}

/// The added tokens of a `tokenizer.json`. Its `model` repeats the vocabulary with all merges, tens
/// of megabytes that are parsed but not kept.
void read_added_list(std::string_view json, const std::string& file, TokenizerConfig& config) {
    using Json = nlohmann::json;
    const auto keep = [](int depth, Json::parse_event_t event, Json& value) {
        return depth != 1 || event != Json::parse_event_t::key || value == "added_tokens";
    };
    std::string kept;
    try {
        const Json parsed = Json::parse(json, keep);
        kept = parsed.dump();
    } catch (const Json::exception& error) {
        throw_input_error("{}: {}", file, error.what());
    }
    const Node root = parse_json(kept, file);
    Reader reader(root);
    if (const Node* list = reader.node("added_tokens");
        list != nullptr && list->items.size() > max_added)
        throw_input_error("{}: added_tokens has {} entries (at most {})", file, list->items.size(),
                          max_added);
    for (Reader& token : reader.children("added_tokens")) {
        token.require("id");
        const auto id = token.get("id", 0, Range{0, max_id});
        read_added(token, id, config);
    }
    reader.finish();
}

/// The words that are matched whole.
class WordTable {
public:
    /// An earlier word stays when a later one is the same.
    void add(std::string_view word, std::int32_t id) {
        if (!ids_.emplace(word, id).second) return;
        auto& lengths = lengths_[static_cast<std::uint8_t>(word.front())];
        const auto place =
            std::lower_bound(lengths.begin(), lengths.end(), word.size(), std::greater<>());
        if (place == lengths.end() || *place != word.size()) lengths.insert(place, word.size());
    }
    std::optional<std::int32_t> find(std::string_view word) const {
        const auto found = ids_.find(word);
        return found == ids_.end() ? std::nullopt : std::optional(found->second);
    }
    struct Match {
        std::size_t bytes;
        std::int32_t id;
    };
    /// The longest word at the start of `text`, which is not empty.
    std::optional<Match> match(std::string_view text) const {
        for (const std::size_t length : lengths_[static_cast<std::uint8_t>(text.front())])
            if (length <= text.size())
                if (const auto id = find(text.substr(0, length))) return Match{length, *id};
        return std::nullopt;
    }

private:
    struct Hash : std::hash<std::string_view> {
        using is_transparent = void;
    };
    std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> ids_;
    std::array<std::vector<std::size_t>, 256> lengths_;  ///< by first byte, longest first, distinct
};

}  // namespace

struct Tokenizer::Data {
    sentencepiece::SentencePieceProcessor processor;
    WordTable words;
    std::vector<std::int32_t> before;  ///< BOS or nothing
    std::vector<std::int32_t> after;   ///< EOS or nothing
    std::int32_t size = 0;
};

TokenizerConfig read_tokenizer_config(std::string_view json, std::string_view file) {
    const Node root = parse_json(json, file);
    Reader reader(root);
    reader.ignore_unknown();
    TokenizerConfig config;
    config.add_bos = reader.get("add_bos_token", config.add_bos);
    config.add_eos = reader.get("add_eos_token", config.add_eos);
    config.bos = read_special(reader, "bos_token");
    config.eos = read_special(reader, "eos_token");
    read_added_decoder(reader, config);
    reader.finish();
    return config;
}

Tokenizer Tokenizer::open(const std::filesystem::path& folder) {
    TokenizerConfig config;
    if (const auto path = folder / "tokenizer_config.json"; there(path))
        config = read_tokenizer_config(read_text(path), path.string());
    if (const auto path = folder / "tokenizer.json"; config.added.empty() && there(path))
        read_added_list(read_text(path), path.string(), config);
    const auto path = folder / "tokenizer.model";
    return Tokenizer(read_text(path), config, path.string());
}

Tokenizer::Tokenizer(std::string_view model, const TokenizerConfig& config, std::string_view file)
    : data_(std::make_unique<Data>()) {
    const PieceTable table = read_piece_table(model, file);
    const auto status = data_->processor.LoadFromSerializedProto(serialize(table));
    if (!status.ok()) throw_input_error("{}: SentencePiece says: {}", file, status.message());

    data_->size = static_cast<std::int32_t>(table.pieces.size());
    for (const auto& [content, id] : config.added) {
        data_->words.add(content, id);
        data_->size = std::max(data_->size, id + 1);
    }
    // A piece of spaces is written with U+2581. Here it matches that character; the spaces become
    // it only inside SentencePiece, which then matches them itself.
    for (std::size_t id = 0; id < table.pieces.size(); ++id)
        if (table.pieces[id].type == Piece::Type::user_defined)
            data_->words.add(table.pieces[id].text, static_cast<std::int32_t>(id));

    const auto special = [&](const std::string& named, const std::string& by_model) {
        const std::string& word = named.empty() ? by_model : named;
        if (const auto id = data_->words.find(word)) return *id;
        for (std::size_t i = 0; i < table.pieces.size(); ++i)
            if (table.pieces[i].text == word) return static_cast<std::int32_t>(i);
        throw_input_error("{}: the special token \"{}\" is no piece of it", file, word);
    };
    if (config.add_bos) data_->before.push_back(special(config.bos, table.bos));
    if (config.add_eos) data_->after.push_back(special(config.eos, table.eos));
}

Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokens Tokenizer::encode(std::string_view text) const {
    if (text.size() > max_text_bytes)
        throw_input_error("the text has {} bytes (at most {})", text.size(), max_text_bytes);
    if (const auto at = first_not_utf8(text))
        throw_input_error("byte {} of the text is not UTF-8", *at);

    Tokens tokens;
    const auto put = [&](std::int32_t id, std::size_t begin, std::size_t end) {
        tokens.ids.push_back(id);
        tokens.begin.push_back(begin);
        tokens.end.push_back(end);
    };
    const auto put_pieces = [&](std::size_t begin, std::size_t end) {
        if (begin == end) return;
        sentencepiece::ImmutableSentencePieceText pieces;
        const auto status =
            data_->processor.Encode(text.substr(begin, end - begin), pieces.mutable_proto());
        CHECK(status.ok(), "SentencePiece says: {}", status.message());
        for (const auto& piece : pieces.pieces())
            put(static_cast<std::int32_t>(piece.id()), begin + piece.begin(), begin + piece.end());
    };

    for (const std::int32_t id : data_->before) put(id, 0, 0);
    std::size_t rest = 0;  // what lies before it is done
    for (std::size_t at = 0; at < text.size();) {
        const auto word = data_->words.match(text.substr(at));
        if (!word) {
            at += utf8_length(text.substr(at));
            continue;
        }
        put_pieces(rest, at);
        put(word->id, at, at + word->bytes);
        rest = at += word->bytes;
    }
    put_pieces(rest, text.size());
    for (const std::int32_t id : data_->after) put(id, text.size(), text.size());
    return tokens;
}

std::int32_t Tokenizer::size() const { return data_->size; }

}  // namespace gallop
