#pragma once

#include <utility>

namespace gallop {

/// Sole owner of a C library's handle; frees it when it goes. Move-only.
/// `Free` is called with the handle; `Null` is the value that means "none".
template <class H, auto Free, H Null = H{}>
class Handle {
public:
    Handle() = default;
    explicit Handle(H handle) : handle_(handle) {}
    Handle(Handle&& other) noexcept : handle_(std::exchange(other.handle_, Null)) {}
    Handle& operator=(Handle&& other) noexcept {
        if (this != &other) reset(std::exchange(other.handle_, Null));
        return *this;
    }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle() { reset(); }

    /// The raw handle, borrowed.
    H get() const { return handle_; }
    /// Address for C functions that return a handle through a pointer; frees what was held.
    H* out() {
        reset();
        return &handle_;
    }
    /// Gives up ownership.
    H release() { return std::exchange(handle_, Null); }
    void reset(H handle = Null) {
        if (handle_ != Null) Free(handle_);
        handle_ = handle;
    }
    explicit operator bool() const { return handle_ != Null; }

private:
    H handle_ = Null;
};

}  // namespace gallop
