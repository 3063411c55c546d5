// A torch pickle by itself, and within its zip archive.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/error.hpp"
#include "model/torch_file.hpp"
#include "model/torch_pickle.hpp"
#include "support/memory_source.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    try {
        for (const gallop::PickledTensor& tensor : gallop::read_torch_pickle(bytes, "fuzz"))
            if (tensor.first > tensor.storage_count ||
                static_cast<std::uint64_t>(tensor.shape.numel()) >
                    tensor.storage_count - tensor.first)
                std::abort();
    } catch (const gallop::InputError&) {
    }
    try {
        gallop::test::MemorySource source(bytes);
        for (const gallop::StoredTensor& tensor : gallop::read_torch_file(source, "fuzz"))
            if (tensor.bytes > size || tensor.offset > size - tensor.bytes) std::abort();
    } catch (const gallop::InputError&) {
    }
    return 0;
}
