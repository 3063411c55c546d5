#include "core/check.hpp"
#include "model/checkpoint.hpp"

namespace gallop {

const Tensor& Weights::operator[](std::string_view name) const {
    const auto found = tensors_.find(name);
    CHECK(found != tensors_.end(), "no weight '{}'", name);
    return found->second;
}

bool Weights::has(std::string_view name) const { return tensors_.find(name) != tensors_.end(); }

void Weights::put(std::string name, Tensor tensor) {
    tensors_.insert_or_assign(std::move(name), std::move(tensor));
}

Tensor Weights::take(std::string_view name) {
    const auto found = tensors_.find(name);
    CHECK(found != tensors_.end(), "no weight '{}'", name);
    Tensor taken = std::move(found->second);
    tensors_.erase(found);
    return taken;
}

std::size_t Weights::bytes() const {
    std::size_t sum = 0;
    for (const auto& [name, tensor] : tensors_) sum += tensor.bytes();
    return sum;
}

}  // namespace gallop
