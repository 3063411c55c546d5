#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace gallop {

/// What Hugging Face's files say about a tokenizer beyond its SentencePiece model.
struct TokenizerConfig {
    /// A word that becomes one token wherever it stands.
    struct AddedToken {
        std::string content;
        std::int32_t id = 0;
    };

    bool add_bos = false;  ///< a BOS token leads; T5Gemma has neither
    bool add_eos = false;
    std::string bos{};  ///< its word; empty: as the SentencePiece model names it
    std::string eos{};
    std::vector<AddedToken> added{};
};

/// Reads the text of a `tokenizer_config.json`: add_bos_token, add_eos_token, bos_token, eos_token,
/// added_tokens_decoder; the rest is not looked at. Throws InputError, also for added tokens that
/// eat white space or want whole words, which no Gemma tokenizer has.
TokenizerConfig read_tokenizer_config(std::string_view json, std::string_view file);

/// A text as ids. All vectors are of one length.
struct Tokens {
    std::vector<std::int32_t> ids;
    std::vector<std::size_t> begin;  ///< first byte of the text that the token stands for
    std::vector<std::size_t> end;    ///< and the byte after its last. BOS, EOS and all but the last
                                     ///< of a character's byte tokens are empty
};

/// Gemma's tokenizer: SentencePiece BPE on raw text, around words that are matched whole.
///
/// Added tokens and the model's user-defined pieces (turns, runs of newlines, HTML tags, …) are
/// matched first, from the left, the longest wins, in the text as it is; what lies between goes
/// through SentencePiece. Source: transformers 4.56 (GemmaTokenizerFast), with which it agrees
/// token by token.
class Tokenizer {
public:
    /// Reads `tokenizer.model` of a folder and, where they are, `tokenizer_config.json` and (for
    /// added tokens, when that has none) `tokenizer.json`. Throws InputError.
    static Tokenizer open(const std::filesystem::path& folder);
    /// `model`: the bytes of a `tokenizer.model`, which errors call `file`. Throws InputError.
    Tokenizer(std::string_view model, const TokenizerConfig& config, std::string_view file);
    Tokenizer(Tokenizer&&) noexcept;
    Tokenizer& operator=(Tokenizer&&) noexcept;
    ~Tokenizer();

    /// Throws InputError when `text` is not UTF-8 or longer than 1 MiB.
    Tokens encode(std::string_view text) const;
    /// Every id is below this.
    std::int32_t size() const;

private:
    struct Data;
    std::unique_ptr<Data> data_;
};

}  // namespace gallop
