#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/reader.hpp"
#include "model/checkpoint.hpp"
#include "model/video_layers.hpp"
#include "support/expect_near.hpp"

namespace gallop::test {

/// Parses a configuration and throws its mistakes.
template <class Read>
auto configured(const Node& node, const Read& read) {
    Reader reader(node);
    auto config = read(reader);
    reader.finish();
    return config;
}

inline Index parameters(const std::vector<TensorSpec>& table) {
    Index sum = 0;
    for (const TensorSpec& spec : table) sum += spec.shape.numel();
    return sum;
}

/// Gathers pictures handed out one stretch after another into [3, F, Y, X], as the golden files
/// are.
class Pictures {
public:
    explicit Pictures(Backend& on) : on_(on) {}
    PictureSink sink() {
        return [this](ConstTensorView pictures) {
            counts_.push_back(pictures.size(0));
            const Tensor host = on_.download(pictures);
            const std::vector<float> values = floats(host);
            values_.insert(values_.end(), values.begin(), values.end());
            shape_ = host.shape();
        };
    }
    /// Pictures in each stretch.
    const std::vector<Index>& counts() const { return counts_; }
    Index count() const {
        Index sum = 0;
        for (const Index n : counts_) sum += n;
        return sum;
    }
    Tensor planes() const {
        const Shape all{count(), shape_[1], shape_[2], shape_[3]};
        Tensor y({all[3], all[0], all[1], all[2]});
        on_.permute(Tensor::of<float>(all, values_), all, std::array{3, 0, 1, 2}, y);
        return y;
    }

private:
    Backend& on_;
    std::vector<float> values_;
    std::vector<Index> counts_;
    Shape shape_;
};

/// Weights drawn from N(0, 1/fan-in), so that activations keep their size; gammas near 1.
inline Weights random_weights(const std::vector<TensorSpec>& table, Backend& on) {
    Weights weights;
    RandomValues random;
    for (const TensorSpec& spec : table) {
        const Shape& s = spec.shape;
        const bool kernel = s.rank() > 1 && s.numel() > s[0];
        const float fan = kernel ? static_cast<float>(s.numel() / s[0]) : 400.0F;
        Tensor values = random.tensor(s, 1.0F / std::sqrt(fan));
        if (spec.name.ends_with("gamma"))
            for (float& v : values.span<float>()) v += 1.0F;
        if (spec.conv) {
            weights.put(spec.name, on.prepare_conv(values, spec.dtype));
        } else {
            Tensor kept = on.empty(s, spec.dtype);
            on.copy(on.upload(values), kept);
            weights.put(spec.name, std::move(kept));
        }
    }
    return weights;
}

}  // namespace gallop::test
