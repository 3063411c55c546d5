// The CPU's steps of the sampler.
#include <cmath>

#include "ops/cpu_backend.hpp"
#include "ops/cpu_rows.hpp"

namespace gallop {

void CpuBackend::do_combine(std::span<const Term> terms, TensorView y) {
    float* out = y.data<float>();
    parallel_chunks(y.numel(), 16384, [&](Index begin, Index end) {
        for (Index i = begin; i < end; ++i) {
            float sum = terms[0].factor * terms[0].x.data<float>()[i];
            for (std::size_t t = 1; t < terms.size(); ++t)
                sum += terms[t].factor * terms[t].x.data<float>()[i];
            out[i] = sum;
        }
    });
}

void CpuBackend::do_guide(ConstTensorView neg, ConstTensorView pos, std::span<const float> scales,
                          TensorView y) {
    const Index frames = y.size(1);
    const Index plane = y.size(2) * y.size(3);
    parallel_for(y.size(0) * frames, [&](Index line) {
        const float g = scales[static_cast<std::size_t>(line % frames)];
        const float* n = neg.data<float>() + line * plane;
        const float* p = pos.data<float>() + line * plane;
        float* out = y.data<float>() + line * plane;
        for (Index i = 0; i < plane; ++i) out[i] = n[i] + g * (p[i] - n[i]);
    });
}

void CpuBackend::do_set_first_frame(ConstTensorView frame, TensorView latent) {
    const Index plane = latent.size(2) * latent.size(3);
    for (Index c = 0; c < latent.size(0); ++c)
        std::copy_n(frame.data<float>() + c * plane, plane,
                    latent.data<float>() + c * latent.size(1) * plane);
}

void CpuBackend::do_normal(const NoiseStream& stream, std::uint64_t first, TensorView y) {
    parallel_chunks(y.numel(), 16384, [&](Index begin, Index end) {
        fill_normal(stream, first + static_cast<std::uint64_t>(begin),
                    {y.data<float>() + begin, static_cast<std::size_t>(end - begin)});
    });
}

bool CpuBackend::do_all_finite(ConstTensorView x) {
    bool finite = true;
    const Index n = line_length(x);
    std::vector<float> buffer;
    for (Index row = 0; row < x.numel() / std::max<Index>(n, 1); ++row) {
        const float* line = read_row(x, row, n, buffer);
        for (Index i = 0; i < n; ++i) finite &= std::isfinite(line[i]);
    }
    return finite;
}

}  // namespace gallop
