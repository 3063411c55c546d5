#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace gallop {

/// Digests of the parts of a model folder, by part: each network folder asked for ("distill",
/// "540p_sr", …) and "shared", which is all the rest but networks not asked for.
using WeightsDigests = std::map<std::string, std::string>;

/// SHA-256 over name, size and SHA-256 of the weights, indices, configurations and tokenizers of
/// each part. Digests of files are kept in `cache` (a JSON file, made when missing; "" for none) by
/// path, device, inode, size and time of change, so that no file is read twice. `networks`: folders
/// of `model`. Throws InputError when a file cannot be opened, Error on an I/O error; a cache that
/// cannot be read or written costs time only.
WeightsDigests digest_weights(const std::filesystem::path& model,
                              const std::vector<std::string>& networks,
                              const std::filesystem::path& cache);

}  // namespace gallop
