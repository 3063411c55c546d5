// The header of a safetensors file, and the index of a sharded one.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/error.hpp"
#include "model/safetensors.hpp"
#include "support/memory_source.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    try {
        gallop::test::MemorySource source(bytes);
        const auto header = gallop::read_safetensors_header(source, "fuzz");
        std::uint64_t end = 0;
        for (const gallop::StoredTensor& tensor : header.tensors) {
            // What is accepted lies in the file, one tensor behind the other, of the size it says.
            if (tensor.offset < end || tensor.bytes > size || tensor.offset > size - tensor.bytes ||
                static_cast<std::uint64_t>(tensor.shape.numel()) * size_of(tensor.type) !=
                    tensor.bytes)
                std::abort();
            end = tensor.offset + tensor.bytes;
        }
    } catch (const gallop::InputError&) {
    }
    try {
        for (const auto& [tensor, shard] : gallop::parse_safetensors_index(bytes, "fuzz"))
            if (shard.empty() || shard == ".." || shard.find('/') != std::string::npos)
                std::abort();
    } catch (const gallop::InputError&) {
    }
    return 0;
}
