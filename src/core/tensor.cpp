#include "core/tensor.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

namespace gallop {

std::string_view name_of(DType dtype) {
    switch (dtype) {
        case DType::f32: return "f32";
        case DType::bf16: return "bf16";
        case DType::f16: return "f16";
        case DType::f8_e4m3: return "f8_e4m3";
        case DType::i32: return "i32";
        case DType::i64: return "i64";
        case DType::u8: return "u8";
    }
    return "?";
}

Shape::Shape(std::span<const Index> extents) : rank_(extents.size()) {
    CHECK(extents.size() <= max_rank, "{} extents (at most {})", extents.size(), max_rank);
    Index product = 1;
    for (const Index extent : extents) {
        CHECK(extent >= 0, "negative extent {}", extent);
        if (extent > 0) {
            CHECK(product <= std::numeric_limits<Index>::max() / 8 / extent,
                  "too many elements: extent {} after a product of {}", extent, product);
            product *= extent;
        }
    }
    std::copy(extents.begin(), extents.end(), extents_.begin());
}

Index Shape::numel() const {
    Index product = 1;
    for (std::size_t axis = 0; axis < rank_; ++axis) product *= extents_[axis];
    return product;
}

bool Shape::operator==(const Shape& other) const {
    return rank_ == other.rank_ && std::equal(begin(), end(), other.begin());
}

std::string to_string(const Shape& shape) {
    return fmt::format("[{}]", fmt::join(shape.begin(), shape.end(), ", "));
}

namespace {

class HostMemory final : public Memory {
public:
    Device device() const override { return Device::cpu; }
    std::byte* allocate(std::size_t bytes) override {
        const std::size_t rounded = (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64;
        void* data = rounded < bytes ? nullptr : std::aligned_alloc(64, rounded);
        if (data == nullptr)
            throw OutOfMemoryError(fmt::format("out of host memory: {} bytes asked for", bytes));
        return static_cast<std::byte*>(data);
    }
    void release(std::byte* data, std::size_t /*bytes*/) noexcept override { std::free(data); }
};

template <class From>
void convert_from(const From* from, TensorView to) {
    const auto run = [&](auto* out) {
        using To = std::remove_pointer_t<decltype(out)>;
        for (Index i = 0; i < to.numel(); ++i) out[i] = from_float<To>(to_float(from[i]));
    };
    switch (to.dtype()) {
        case DType::f32: return run(to.data<float>());
        case DType::bf16: return run(to.data<bf16>());
        case DType::f16: return run(to.data<f16>());
        case DType::f8_e4m3: return run(to.data<f8_e4m3>());
        default: break;
    }
    throw Error(fmt::format("cannot convert to {}", name_of(to.dtype())));
}

}  // namespace

Memory& host_memory() {
    static HostMemory memory;
    return memory;
}

Tensor::Tensor(Shape shape, DType dtype, Memory& memory)
    : data_(memory.allocate(static_cast<std::size_t>(shape.numel()) * size_of(dtype))),
      shape_(shape),
      dtype_(dtype),
      memory_(&memory) {}

Tensor::Tensor(Tensor&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      shape_(other.shape_),
      dtype_(other.dtype_),
      memory_(other.memory_) {}

Tensor& Tensor::operator=(Tensor&& other) noexcept {
    if (this != &other) {
        if (data_ != nullptr) memory_->release(data_, bytes());
        data_ = std::exchange(other.data_, nullptr);
        shape_ = other.shape_;
        dtype_ = other.dtype_;
        memory_ = other.memory_;
    }
    return *this;
}

Tensor::~Tensor() {
    if (data_ != nullptr) memory_->release(data_, bytes());
}

Tensor Tensor::zeros(Shape shape, DType dtype) {
    Tensor made(shape, dtype);
    std::memset(made.data_, 0, made.bytes());
    return made;
}

void Tensor::reshape(Shape shape) {
    CHECK(shape.numel() == numel(), "an array of shape {} cannot become {}", to_string(shape_),
          to_string(shape));
    shape_ = shape;
}

Tensor Tensor::clone() const {
    CHECK(device() == Device::cpu, "clone copies host arrays only");
    Tensor made(shape_, dtype_);
    if (bytes() > 0) std::memcpy(made.data_, data_, bytes());
    return made;
}

void convert(ConstTensorView from, TensorView to) {
    CHECK(from.shape() == to.shape(), "shapes differ: {} and {}", to_string(from.shape()),
          to_string(to.shape()));
    if (from.dtype() == to.dtype()) {
        if (from.bytes() > 0) std::memcpy(to.raw(), from.raw(), from.bytes());
        return;
    }
    switch (from.dtype()) {
        case DType::f32: return convert_from(from.data<float>(), to);
        case DType::bf16: return convert_from(from.data<bf16>(), to);
        case DType::f16: return convert_from(from.data<f16>(), to);
        case DType::f8_e4m3: return convert_from(from.data<f8_e4m3>(), to);
        default: break;
    }
    throw Error(fmt::format("cannot convert from {}", name_of(from.dtype())));
}

}  // namespace gallop
