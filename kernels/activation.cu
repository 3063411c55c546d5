#include "kernels/common.cuh"

namespace gallop::kernels {

void launch(const Activate& a, cudaStream_t stream) {
    for_each(a.n, stream, "activation",
             [a] __device__(Index i) { store(a.y, i, apply(a.activation, load(a.x, i))); });
}

void launch(const Add& a, cudaStream_t stream) {
    for_each(a.n, stream, "add",
             [a] __device__(Index i) { store(a.x, i, load(a.x, i) + load(a.y, i)); });
}

void launch(const Swiglu7& a, cudaStream_t stream) {
    for_each(a.n, stream, "swiglu7", [a] __device__(Index i) {
        const float gate = load(a.u, 2 * i);
        const float linear = load(a.u, 2 * i + 1);
        // Written so that NaN stays NaN.
        const float g = gate > 7.0F ? 7.0F : gate;
        const float l = linear < -7.0F ? -7.0F : linear > 7.0F ? 7.0F : linear;
        store(a.y, i, g * sigmoid(1.702F * g) * (l + 1.0F));
    });
}

void launch(const Gelu7& a, cudaStream_t stream) {
    for_each(a.n, stream, "gelu7", [a] __device__(Index i) {
        const float u = load(a.u, i);
        const float z = u > 7.0F ? 7.0F : u;
        store(a.y, i, z * sigmoid(1.702F * z));
    });
}

void launch(const Geglu& a, cudaStream_t stream) {
    for_each(a.n, stream, "geglu", [a] __device__(Index i) {
        constexpr float root = 0.7978845608028654F;  // √(2/π)
        const float x = load(a.gate, i);
        const float inner = root * (x + 0.044715F * x * x * x);
        const float gelu = 0.5F * x * (1.0F + tanhf(inner));
        store(a.y, i, (a.round_gelu ? round_to_bf16(gelu) : gelu) * load(a.up, i));
    });
}

void launch(const Snake& a, cudaStream_t stream) {
    for_each(a.rows * a.channels, stream, "snake", [a] __device__(Index i) {
        const Index c = i % a.channels;
        const float x = a.x[i];
        const float sine = sinf(x * expf(a.alpha[c]));
        a.y[i] = x + sine * sine * (1.0F / (expf(a.beta[c]) + 1e-9F));
    });
}

}  // namespace gallop::kernels
