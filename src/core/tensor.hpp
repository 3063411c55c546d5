#pragma once

// The shape alphabet, used in every comment of the project:
//   L tokens (rows), D width, H query heads, G key/value heads, K head size, E experts,
//   T latent frames, Y X rows and columns of a picture or latent, C channels, S samples,
//   V A video and audio tokens.

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "core/check.hpp"
#include "core/numeric.hpp"

namespace gallop {

using Index = std::int64_t;

enum class DType : std::uint8_t { f32, bf16, f16, f8_e4m3, i32, i64, u8 };

/// Bytes of one element.
constexpr std::size_t size_of(DType dtype) {
    switch (dtype) {
        case DType::f32:
        case DType::i32: return 4;
        case DType::bf16:
        case DType::f16: return 2;
        case DType::i64: return 8;
        case DType::f8_e4m3:
        case DType::u8: return 1;
    }
    return 0;
}

/// "f32", "bf16", …
std::string_view name_of(DType dtype);

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
    static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<bf16> {
    static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<f16> {
    static constexpr DType value = DType::f16;
};
template <>
struct DTypeOf<f8_e4m3> {
    static constexpr DType value = DType::f8_e4m3;
};
template <>
struct DTypeOf<std::int32_t> {
    static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<std::int64_t> {
    static constexpr DType value = DType::i64;
};
template <>
struct DTypeOf<std::uint8_t> {
    static constexpr DType value = DType::u8;
};

/// Extents of an array, row-major, last index fastest; at most eight of them.
class Shape {
public:
    static constexpr std::size_t max_rank = 8;

    Shape() = default;
    Shape(std::initializer_list<Index> extents) : Shape(std::span<const Index>(extents)) {}
    /// Throws Error when there are more than eight extents, one is negative, or the product overflows.
    explicit Shape(std::span<const Index> extents);

    std::size_t rank() const { return rank_; }
    Index operator[](std::size_t axis) const { return extents_[axis]; }
    /// The last extent; 1 for rank 0.
    Index back() const { return rank_ == 0 ? 1 : extents_[rank_ - 1]; }
    /// Product of all extents; 1 for rank 0.
    Index numel() const;
    const Index* begin() const { return extents_.data(); }
    const Index* end() const { return extents_.data() + rank_; }
    bool operator==(const Shape& other) const;

private:
    std::array<Index, max_rank> extents_{};
    std::size_t rank_ = 0;
};

/// "[2, 3, 5]"
std::string to_string(const Shape& shape);

enum class Device : std::uint8_t { cpu, cuda };

/// A contiguous array that somebody else owns: address, type, shape. `Byte` is `std::byte` or
/// `const std::byte`.
template <class Byte>
class BasicTensorView {
    static constexpr bool is_const = std::is_const_v<Byte>;
    template <class T>
    using Element = std::conditional_t<is_const, const T, T>;

public:
    BasicTensorView() = default;
    BasicTensorView(Byte* data, Shape shape, DType dtype, Device device)
        : data_(data), shape_(shape), dtype_(dtype), device_(device) {}
    /// A mutable view serves as a const one.
    template <class Other, class = std::enable_if_t<is_const && !std::is_const_v<Other>>>
    BasicTensorView(const BasicTensorView<Other>& other)  // NOLINT(google-explicit-constructor)
        : data_(other.raw()),
          shape_(other.shape()),
          dtype_(other.dtype()),
          device_(other.device()) {}

    Byte* raw() const { return data_; }
    const Shape& shape() const { return shape_; }
    DType dtype() const { return dtype_; }
    Device device() const { return device_; }
    Index numel() const { return shape_.numel(); }
    std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype_); }
    bool defined() const { return data_ != nullptr; }
    Index size(std::size_t axis) const { return shape_[axis]; }

    /// The elements. Throws Error when `T` is not the dtype.
    template <class T>
    Element<T>* data() const {
        CHECK(DTypeOf<T>::value == dtype_, "array of {} read as {}", name_of(dtype_),
              name_of(DTypeOf<T>::value));
        return reinterpret_cast<Element<T>*>(data_);
    }
    template <class T>
    std::span<Element<T>> span() const {
        return {data<T>(), static_cast<std::size_t>(numel())};
    }

    /// Entries begin … end−1 of the first axis.
    BasicTensorView rows(Index begin, Index end) const {
        CHECK(shape_.rank() >= 1 && 0 <= begin && begin <= end && end <= shape_[0],
              "rows {} to {} of an array of shape {}", begin, end, to_string(shape_));
        std::array<Index, Shape::max_rank> extents{};
        std::copy(shape_.begin(), shape_.end(), extents.begin());
        const Index row = shape_[0] == 0 ? 0 : numel() / shape_[0];
        extents[0] = end - begin;
        return {data_ + static_cast<std::size_t>(begin * row) * size_of(dtype_),
                Shape(std::span<const Index>(extents.data(), shape_.rank())), dtype_, device_};
    }
    /// The same elements under another shape. Throws Error when the number of elements differs.
    BasicTensorView reshape(Shape shape) const {
        CHECK(shape.numel() == numel(), "an array of shape {} cannot be read as {}",
              to_string(shape_), to_string(shape));
        return {data_, shape, dtype_, device_};
    }

private:
    Byte* data_ = nullptr;
    Shape shape_;
    DType dtype_ = DType::f32;
    Device device_ = Device::cpu;
};

using TensorView = BasicTensorView<std::byte>;
using ConstTensorView = BasicTensorView<const std::byte>;

/// Where a tensor's bytes come from and go back to.
class Memory {
public:
    virtual ~Memory() = default;
    virtual Device device() const = 0;
    /// 64-byte aligned, not initialised. Throws OutOfMemoryError.
    virtual std::byte* allocate(std::size_t bytes) = 0;
    virtual void release(std::byte* data, std::size_t bytes) noexcept = 0;
};

/// Plain host memory.
Memory& host_memory();

/// Owns the bytes of one contiguous array on one device. Move-only; copying is spelt out (`clone`).
class Tensor {
public:
    Tensor() = default;
    /// Uninitialised. `memory` must outlive the tensor. Throws OutOfMemoryError.
    explicit Tensor(Shape shape, DType dtype = DType::f32, Memory& memory = host_memory());
    Tensor(Tensor&& other) noexcept;
    Tensor& operator=(Tensor&& other) noexcept;
    Tensor(const Tensor&) = delete;
    Tensor& operator=(const Tensor&) = delete;
    ~Tensor();

    /// A host tensor of `values`; their number must fit the shape.
    template <class T>
    static Tensor of(Shape shape, std::span<const T> values) {
        Tensor made(shape, DTypeOf<T>::value);
        CHECK(made.numel() == static_cast<Index>(values.size()), "{} values for shape {}",
              values.size(), to_string(shape));
        std::copy(values.begin(), values.end(), made.data<T>());
        return made;
    }
    /// A host tensor of zero bytes.
    static Tensor zeros(Shape shape, DType dtype = DType::f32);

    TensorView view() { return {data_, shape_, dtype_, device()}; }
    ConstTensorView view() const { return {data_, shape_, dtype_, device()}; }
    operator TensorView() { return view(); }             // NOLINT(google-explicit-constructor)
    operator ConstTensorView() const { return view(); }  // NOLINT(google-explicit-constructor)

    const Shape& shape() const { return shape_; }
    DType dtype() const { return dtype_; }
    Device device() const { return memory_ == nullptr ? Device::cpu : memory_->device(); }
    Index numel() const { return shape_.numel(); }
    std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype_); }
    Index size(std::size_t axis) const { return shape_[axis]; }
    bool defined() const { return data_ != nullptr; }

    template <class T>
    T* data() {
        return view().template data<T>();
    }
    template <class T>
    const T* data() const {
        return view().template data<T>();
    }
    template <class T>
    std::span<T> span() {
        return view().template span<T>();
    }
    template <class T>
    std::span<const T> span() const {
        return view().template span<T>();
    }
    TensorView rows(Index begin, Index end) { return view().rows(begin, end); }
    ConstTensorView rows(Index begin, Index end) const { return view().rows(begin, end); }
    /// Changes the shape in place. Throws Error when the number of elements differs.
    void reshape(Shape shape);

    /// A copy on the host. Host tensors only.
    Tensor clone() const;

private:
    std::byte* data_ = nullptr;
    Shape shape_;
    DType dtype_ = DType::f32;
    Memory* memory_ = nullptr;
};

/// Converts host arrays element by element with one rounding; same shape. Throws Error for a pair of
/// dtypes that is not both floating.
void convert(ConstTensorView from, TensorView to);

}  // namespace gallop
