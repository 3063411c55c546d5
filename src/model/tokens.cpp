#include "model/tokens.hpp"

#include <cmath>

#include "core/view.hpp"

namespace gallop {

CoordsStyle coords_style_of(std::string_view name) {
    if (name == "v1") return CoordsStyle::v1;
    if (name == "v2") return CoordsStyle::v2;
    throw_input_error("coordinates style \"{}\" (v1 or v2)", name);
}

Tensor token_coordinates(const SequenceShape& shape, CoordsStyle style) {
    Tensor made({shape.tokens(), 9});
    auto out = made.span<float>();
    std::size_t at = 0;
    const auto put = [&](Index t, Index y, Index x, std::array<Index, 3> size,
                         std::array<Index, 3> reference) {
        for (const Index value :
             {t, y, x, size[0], size[1], size[2], reference[0], reference[1], reference[2]})
            out[at++] = static_cast<float>(value);
    };
    const std::array<Index, 3> grid{shape.frames, shape.rows, shape.columns};
    for (Index t = 0; t < shape.frames; ++t)
        for (Index y = 0; y < shape.rows; ++y)
            for (Index x = 0; x < shape.columns; ++x) put(t, y, x, grid, grid);
    const Index audio_reference =
        style == CoordsStyle::v1 ? shape.frames : (shape.audio - 1) / 4 + 1;
    for (Index a = 0; a < shape.audio; ++a)
        put(a, 0, 0, {shape.audio, 1, 1}, {audio_reference, 1, 1});
    for (Index j = 0; j < shape.text; ++j) {
        if (style == CoordsStyle::v1)
            put(j, 0, 0, {shape.text, 1, 1}, {2, 1, 1});
        else
            put(j - shape.text, 0, 0, {shape.text, 1, 1}, {1, 1, 1});
    }
    return made;
}

Tensor rope_table(const Tensor& coordinates, std::span<const float> bands) {
    const auto coords = as<const float, 2>(coordinates.view());
    const auto count = static_cast<Index>(bands.size());
    Tensor made({coords.shape[0], 6 * count});
    const auto table = as<float, 2>(made.view());
    for (Index s = 0; s < coords.shape[0]; ++s)
        for (Index axis = 0; axis < 3; ++axis) {
            const float size = coords(s, 3 + axis);
            const float reference = coords(s, 6 + axis);
            const float centre = axis == 0 ? 0.0F : (size - 1.0F) / 2.0F;
            // A grid of one point has no spacing to scale; the reference divides 1 by 0 there in
            // v1.
            const float scale = size == 1.0F ? 1.0F : (reference - 1.0F) / (size - 1.0F);
            for (Index b = 0; b < count; ++b) {
                const float angle =
                    (coords(s, axis) - centre) * scale * bands[static_cast<std::size_t>(b)];
                table(s, axis * count + b) = std::sin(angle);
                table(s, (3 + axis) * count + b) = std::cos(angle);
            }
        }
    return made;
}

Tensor patchify(ConstTensorView latent, Backend& on) {
    const Shape& shape = latent.shape();
    CHECK(shape.rank() == 4 && shape[2] % 2 == 0 && shape[3] % 2 == 0,
          "a latent of shape {} cannot be cut into 2×2 patches", to_string(shape));
    const Index rows = shape[2] / 2, columns = shape[3] / 2;
    Tensor tokens = on.empty({shape[1] * rows * columns, shape[0] * 4});
    const std::array order{1, 2, 4, 0, 3, 5};
    on.permute(latent, {shape[0], shape[1], rows, 2, columns, 2}, order, tokens);
    return tokens;
}

Tensor unpatchify(ConstTensorView tokens, const SequenceShape& shape, Backend& on) {
    const Index channels = tokens.size(1) / 4;
    Tensor latent = on.empty({channels, shape.frames, 2 * shape.rows, 2 * shape.columns});
    const std::array order{5, 0, 1, 3, 2, 4};
    on.permute(tokens, {shape.frames, shape.rows, shape.columns, 2, 2, channels}, order, latent);
    return latent;
}

}  // namespace gallop
