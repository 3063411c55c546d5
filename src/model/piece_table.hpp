#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gallop {

/// One entry of a SentencePiece vocabulary; its id is its place in the table.
struct Piece {
    /// Numbers as in sentencepiece_model.proto.
    enum class Type : std::uint8_t { normal = 1, unknown, control, user_defined, unused, byte };

    std::string text;
    float score = 0.0F;  ///< of two possible merges the one with the higher score comes first
    Type type = Type::normal;
};

/// What of a SentencePiece model decides how a text is cut.
struct PieceTable {
    std::vector<Piece> pieces;
    bool byte_fallback = false;     ///< unknown characters become their UTF-8 bytes, else `unknown`
    std::string unknown = "<unk>";  ///< names of special pieces
    std::string bos = "<s>";
    std::string eos = "</s>";
};

/// Reads a `tokenizer.model` (protobuf, sentencepiece_model.proto). `file` is named in errors.
/// Throws InputError for anything malformed, for more than 2^20 pieces, pieces that are empty,
/// longer than 512 bytes, not UTF-8, that hold a NUL, or appear twice, scores that are not finite,
/// byte pieces that are not all there, no or two unknown pieces; and for models of another make
/// than Gemma's: not BPE, with a dummy prefix, or that normalise the text.
PieceTable read_piece_table(std::string_view bytes, std::string_view file);

/// The same as a protobuf of ours, so that the SentencePiece library never sees a stranger's bytes.
std::string serialize(const PieceTable& table);

}  // namespace gallop
