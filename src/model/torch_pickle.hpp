#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/checkpoint.hpp"

namespace gallop {

/// A tensor as a torch pickle describes it.
struct PickledTensor {
    std::string name;
    StoredType type = StoredType::f32;
    Shape shape;
    std::string storage;              ///< key of the archive's member `data/KEY`
    std::uint64_t storage_count = 0;  ///< elements of that storage
    std::uint64_t first = 0;          ///< element of the storage where the tensor begins
};

/// The tensors of a pickle made by torch.save: a map name → tensor, or such a map under
/// `ema_state_dict`, `state_dict` or `model`; a leading `module.` is cut off, entries that are not
/// tensors are passed over. Nothing is executed: only the opcodes that torch.save emits for plain
/// containers are known, and only these globals: collections.OrderedDict, torch.Size,
/// torch._utils._rebuild_tensor_v2, torch._utils._rebuild_parameter and torch's storage classes.
/// Throws InputError that starts with `file` and names any other opcode or global, and for tensors
/// that are not contiguous or leave their storage.
std::vector<PickledTensor> read_torch_pickle(std::string_view pickle, const std::string& file);

}  // namespace gallop
