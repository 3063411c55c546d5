#include "model/piece_table.hpp"

#include <bit>
#include <cmath>
#include <optional>
#include <unordered_map>

#include "core/check.hpp"
#include "core/utf8.hpp"

namespace gallop {
namespace {

constexpr std::size_t max_pieces = std::size_t{1} << 20;
constexpr std::size_t max_piece_bytes = 512;
constexpr std::uint64_t bpe = 2;  // TrainerSpec.ModelType

// Field numbers of sentencepiece_model.proto.
namespace model_field {
enum : std::uint32_t { pieces = 1, trainer = 2, normalizer = 3 };
}
namespace piece_field {
enum : std::uint32_t { text = 1, score = 2, type = 3 };
}
namespace trainer_field {
enum : std::uint32_t {
    model_type = 3,
    whitespace_as_suffix = 24,
    byte_fallback = 35,
    unk_piece = 45,
    bos_piece = 46,
    eos_piece = 47
};
}
namespace normalizer_field {
enum : std::uint32_t {
    name = 1,
    charsmap = 2,
    dummy_prefix = 3,
    remove_whitespaces = 4,
    escape_whitespaces = 5
};
}

enum class Wire : std::uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

/// One field of a message: its number and what it holds.
struct Field {
    std::uint32_t number;
    Wire wire;
    std::uint64_t value = 0;  ///< of varint, fixed32, fixed64
    std::string_view bytes;
};

/// Walks the fields of one protobuf message.
class Message {
public:
    Message(std::string_view bytes, std::string_view file) : bytes_(bytes), file_(file) {}

    std::optional<Field> next() {
        if (bytes_.empty()) return std::nullopt;
        const std::uint64_t tag = varint();
        const std::uint64_t number = tag >> 3;
        if (number == 0 || number > 0x1fffffffU) fail("a field number is out of range");
        Field field{static_cast<std::uint32_t>(number), static_cast<Wire>(tag & 7), 0, {}};
        switch (field.wire) {
            case Wire::varint: field.value = varint(); return field;
            case Wire::fixed64: field.value = fixed(8); return field;
            case Wire::fixed32: field.value = fixed(4); return field;
            case Wire::bytes: field.bytes = take(varint()); return field;
        }
        fail("a field is of an unknown wire type");
    }

    /// A nested message.
    Message nested(const Field& field) const { return {text(field), file_}; }
    std::string_view text(const Field& field) const {
        want(field, Wire::bytes);
        return field.bytes;
    }
    std::uint64_t number(const Field& field) const {
        want(field, Wire::varint);
        return field.value;
    }
    float real(const Field& field) const {
        want(field, Wire::fixed32);
        return std::bit_cast<float>(static_cast<std::uint32_t>(field.value));
    }

    [[noreturn]] void fail(std::string_view why) const {
        throw_input_error("{}: not a SentencePiece model: {}", file_, why);
    }

private:
    void want(const Field& field, Wire wire) const {
        if (field.wire != wire) fail(fmt::format("field {} is of the wrong type", field.number));
    }
    std::string_view take(std::uint64_t count) {
        if (count > bytes_.size()) fail("it ends in the middle of a field");
        const std::string_view taken = bytes_.substr(0, count);
        bytes_.remove_prefix(count);
        return taken;
    }
    std::uint64_t fixed(unsigned count) {
        std::uint64_t value = 0;
        unsigned shift = 0;
        for (const char c : take(count)) {
            value |= std::uint64_t{static_cast<std::uint8_t>(c)} << shift;
            shift += 8;
        }
        return value;
    }
    std::uint64_t varint() {
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            const auto byte = static_cast<std::uint8_t>(take(1).front());
            value |= std::uint64_t{byte & 0x7fU} << shift;
            if (byte < 0x80) return value;
        }
        fail("a number has more than ten bytes");
    }

    std::string_view bytes_;
    std::string_view file_;
};

/// The value of "<0xHH>", or nothing.
std::optional<unsigned> byte_value(std::string_view text) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
    const auto high = digits.find(text[3]);
    const auto low = digits.find(text[4]);
    if (high == digits.npos || low == digits.npos) return std::nullopt;
    return static_cast<unsigned>(high * 16 + low);
}

Piece read_piece(Message message) {
    Piece piece;
    while (const auto field = message.next()) {
        switch (field->number) {
            case piece_field::text: piece.text = message.text(*field); break;
            case piece_field::score: piece.score = message.real(*field); break;
            case piece_field::type: {
                const std::uint64_t type = message.number(*field);
                if (type < 1 || type > 6) message.fail(fmt::format("piece type {}", type));
                piece.type = static_cast<Piece::Type>(type);
                break;
            }
            default: break;
        }
    }
    return piece;
}

void read_trainer(Message message, PieceTable& table, std::uint64_t& model_type,
                  std::string_view file) {
    while (const auto field = message.next()) {
        switch (field->number) {
            case trainer_field::model_type: model_type = message.number(*field); break;
            case trainer_field::byte_fallback:
                table.byte_fallback = message.number(*field) != 0;
                break;
            case trainer_field::unk_piece: table.unknown = message.text(*field); break;
            case trainer_field::bos_piece: table.bos = message.text(*field); break;
            case trainer_field::eos_piece: table.eos = message.text(*field); break;
            case trainer_field::whitespace_as_suffix:
                if (message.number(*field) != 0)
                    throw_input_error("{}: treats white space as a suffix (Gemma's does not)",
                                      file);
                break;
            default: break;
        }
    }
}

/// What a normaliser would do to the text; the initial values are protobuf's defaults.
struct Normalizer {
    std::string name;
    bool has_charsmap = false;
    bool dummy_prefix = true;
    bool remove_whitespaces = true;
    bool escape_whitespaces = true;
};

void read_normalizer(Message message, Normalizer& normalizer) {
    while (const auto field = message.next()) {
        switch (field->number) {
            case normalizer_field::name: normalizer.name = message.text(*field); break;
            case normalizer_field::charsmap:
                normalizer.has_charsmap = !message.text(*field).empty();
                break;
            case normalizer_field::dummy_prefix:
                normalizer.dummy_prefix = message.number(*field) != 0;
                break;
            case normalizer_field::remove_whitespaces:
                normalizer.remove_whitespaces = message.number(*field) != 0;
                break;
            case normalizer_field::escape_whitespaces:
                normalizer.escape_whitespaces = message.number(*field) != 0;
                break;
            default: break;
        }
    }
}

void check_normalizer(const Normalizer& normalizer, std::string_view file) {
    if (normalizer.has_charsmap)
        throw_input_error("{}: normalises text by the rule \"{}\" (Gemma's uses \"identity\")",
                          file, normalizer.name);
    if (normalizer.dummy_prefix)
        throw_input_error("{}: puts a space before the text (Gemma's add_dummy_prefix is false)",
                          file);
    if (normalizer.remove_whitespaces)
        throw_input_error("{}: removes repeated spaces (Gemma's remove_extra_whitespaces is false)",
                          file);
    if (!normalizer.escape_whitespaces)
        throw_input_error("{}: keeps spaces as they are (Gemma's escape_whitespaces is true)",
                          file);
}

void check_pieces(const PieceTable& table, std::string_view file) {
    if (table.pieces.empty()) throw_input_error("{}: holds no pieces", file);
    std::unordered_map<std::string_view, std::size_t> ids;
    std::size_t bytes = 0;
    std::size_t unknowns = 0;
    for (std::size_t id = 0; id < table.pieces.size(); ++id) {
        const Piece& piece = table.pieces[id];
        if (piece.text.empty()) throw_input_error("{}: piece {} is empty", file, id);
        if (piece.text.size() > max_piece_bytes)
            throw_input_error("{}: piece {} has {} bytes (at most {})", file, id, piece.text.size(),
                              max_piece_bytes);
        if (first_not_utf8(piece.text) || piece.text.find('\0') != std::string::npos)
            throw_input_error("{}: piece {} is not UTF-8 or holds a NUL", file, id);
        if (!std::isfinite(piece.score))
            throw_input_error("{}: the score of piece {} is {} (must be finite)", file, id,
                              piece.score);
        const auto [other, fresh] = ids.emplace(piece.text, id);
        if (!fresh)
            throw_input_error("{}: piece \"{}\" has two ids, {} and {}", file, piece.text,
                              other->second, id);
        if (piece.type == Piece::Type::byte) {
            if (!byte_value(piece.text))
                throw_input_error("{}: byte piece {} is \"{}\" (must be like <0x0A>)", file, id,
                                  piece.text);
            ++bytes;
        }
        if (piece.type == Piece::Type::unknown) {
            ++unknowns;
            if (piece.text != table.unknown)
                throw_input_error("{}: the unknown piece is \"{}\" but the model says \"{}\"", file,
                                  piece.text, table.unknown);
        }
    }
    const std::size_t expected = table.byte_fallback ? 256 : 0;
    if (bytes != expected)
        throw_input_error("{}: has {} byte pieces (needs {})", file, bytes, expected);
    if (unknowns != 1) throw_input_error("{}: has {} unknown pieces (needs one)", file, unknowns);
}

// ---- writing ----

void put_varint(std::string& out, std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>((value & 0x7fU) | 0x80U));
    out.push_back(static_cast<char>(value));
}

void put_number(std::string& out, std::uint32_t field, std::uint64_t value) {
    put_varint(out, (field << 3U) | static_cast<std::uint32_t>(Wire::varint));
    put_varint(out, value);
}

void put_bytes(std::string& out, std::uint32_t field, std::string_view bytes) {
    put_varint(out, (field << 3U) | static_cast<std::uint32_t>(Wire::bytes));
    put_varint(out, bytes.size());
    out += bytes;
}

void put_real(std::string& out, std::uint32_t field, float value) {
    put_varint(out, (field << 3U) | static_cast<std::uint32_t>(Wire::fixed32));
    const auto bits = std::bit_cast<std::uint32_t>(value);
    for (unsigned shift = 0; shift < 32; shift += 8)
        out.push_back(static_cast<char>(bits >> shift));
}

}  // namespace

PieceTable read_piece_table(std::string_view bytes, std::string_view file) {
    PieceTable table;
    std::uint64_t model_type = 1;  // the default, unigram
    Normalizer normalizer;
    Message message(bytes, file);
    while (const auto field = message.next()) {
        switch (field->number) {
            case model_field::pieces:
                if (table.pieces.size() == max_pieces)
                    throw_input_error("{}: has more than {} pieces", file, max_pieces);
                table.pieces.push_back(read_piece(message.nested(*field)));
                break;
            case model_field::trainer:
                read_trainer(message.nested(*field), table, model_type, file);
                break;
            case model_field::normalizer:
                read_normalizer(message.nested(*field), normalizer);
                break;
            default: break;
        }
    }
    if (model_type != bpe)
        throw_input_error("{}: is of SentencePiece model type {} (needs {}, BPE)", file, model_type,
                          bpe);
    check_normalizer(normalizer, file);
    check_pieces(table, file);
    return table;
}

std::string serialize(const PieceTable& table) {
    std::string out;
    std::string inner;
    for (const Piece& piece : table.pieces) {
        inner.clear();
        put_bytes(inner, piece_field::text, piece.text);
        put_real(inner, piece_field::score, piece.score);
        put_number(inner, piece_field::type, static_cast<std::uint64_t>(piece.type));
        put_bytes(out, model_field::pieces, inner);
    }
    inner.clear();
    put_number(inner, trainer_field::model_type, bpe);
    put_number(inner, trainer_field::byte_fallback, table.byte_fallback ? 1 : 0);
    put_bytes(inner, trainer_field::unk_piece, table.unknown);
    put_bytes(inner, trainer_field::bos_piece, table.bos);
    put_bytes(inner, trainer_field::eos_piece, table.eos);
    put_bytes(out, model_field::trainer, inner);
    inner.clear();
    put_bytes(inner, normalizer_field::name, "identity");
    put_number(inner, normalizer_field::dummy_prefix, 0);
    put_number(inner, normalizer_field::remove_whitespaces, 0);
    put_number(inner, normalizer_field::escape_whitespaces, 1);
    put_bytes(out, model_field::normalizer, inner);
    return out;
}

}  // namespace gallop
