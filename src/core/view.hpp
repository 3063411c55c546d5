#pragma once

#include <array>

#include "core/tensor.hpp"

namespace gallop {

/// Host elements with N extents, row-major: `view(i, j)`. Borrowed.
template <class T, std::size_t N>
struct View {
    T* data;
    std::array<Index, N> shape;

    template <class... I>
    T& operator()(I... index) const {
        static_assert(sizeof...(I) == N);
        Index offset = 0;
        std::size_t axis = 0;
        ((offset = offset * shape[axis++] + static_cast<Index>(index)), ...);
        return data[offset];
    }
};

/// Reads a host array as a View. Throws Error when dtype or rank differ.
template <class T, std::size_t N, class Byte>
auto as(const BasicTensorView<Byte>& tensor) {
    CHECK(tensor.shape().rank() == N, "an array of shape {} read with {} extents",
          to_string(tensor.shape()), N);
    CHECK(tensor.device() == Device::cpu, "a device array read on the host");
    auto* data = tensor.template data<std::remove_const_t<T>>();
    View<std::remove_pointer_t<decltype(data)>, N> view{data, {}};
    std::copy(tensor.shape().begin(), tensor.shape().end(), view.shape.begin());
    return view;
}

}  // namespace gallop
