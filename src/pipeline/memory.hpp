#pragma once

#include <functional>
#include <list>
#include <optional>
#include <string>

#include "core/memory_use.hpp"
#include "model/transformer.hpp"
#include "model/turbo_vae.hpp"
#include "model/wan_vae.hpp"

namespace gallop {

// How large a block of device memory (see MemoryStage) holds all arrays of the networks in a run, beyond
// their weights and what the device's libraries need of their own. Found by running them dry (see
// DryBackend): what they allocate there, in that order, is what they allocate on a device.

/// Decoding a normalised latent [48, T, Y, X] into bytes of RGB, with a PictureRelay.
std::size_t decode_peak(const TurboVaeConfig& config, DType dtype, const Shape& latent,
                        Index strips);
std::size_t decode_peak(const WanVaeConfig& config, DType dtype, const Shape& latent, Index strips);
/// One forward for one member of a group of `gpus`. `table`: its weights as they are loaded, sharded,
/// padded and in E4M3 or not.
std::size_t forward_peak(const TransformerConfig& config, const std::vector<TensorSpec>& table,
                         const SequenceShape& shape, int gpus = 1);
/// What loaded weights take, the scales of E4M3 rows among them.
std::size_t weight_bytes(const std::vector<TensorSpec>& table);

/// What must be free for a stage whose arrays take so many bytes: an eighth more for what a pool keeps in
/// pieces of the wrong sizes, and 1 GiB for workspaces, the most that a plan of cuDNN's is allowed.
std::size_t with_workspaces(std::size_t bytes);
/// The arrays of a sampler that is denoising latents of this shape.
std::size_t sampler_bytes(const TransformerConfig& config, const SequenceShape& shape);
/// The block for a stage whose arrays take so many bytes: with room for workspaces of the usual size, and
/// for what a device lays out otherwise than the dry run. No more than `with_workspaces`.
std::size_t stage_bytes(std::size_t arrays);

/// The fewest strips, up to `most`, with which a decode fits into `left` bytes, workspaces included;
/// `most` where none does, 1 where nobody knows what is left.
Index strips_that_fit(std::optional<std::size_t> left, Index most,
                      const std::function<std::size_t(Index strips)>& peak);

/// What the networks of a renderer hold of a device: all that fits stays, the longest unused leaves
/// first when something else needs the room.
class Residents {
public:
    /// A network is on the device now. `leave` frees it.
    void came(const std::string& name, std::function<void()> leave);
    /// A network is about to be used.
    void used(const std::string& name);
    /// Sends networks away, but not `kept`, until `bytes` are left by `left` (nothing: not known, and
    /// all stay) or none can go. Returns the names of those that left.
    std::vector<std::string> make_room(std::size_t bytes, const std::string& kept,
                                       const std::function<std::optional<std::size_t>()>& left);

private:
    std::list<std::pair<std::string, std::function<void()>>> all_;  ///< longest unused first
};

}  // namespace gallop
