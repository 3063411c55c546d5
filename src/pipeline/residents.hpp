#pragma once

#include <functional>
#include <list>
#include <optional>
#include <string>
#include <vector>

namespace gallop {

/// What the networks of a renderer hold of a device: all that fits stays, the longest unused leaves
/// first when something else needs the room, unless one alone makes enough: then no other need leave.
class Residents {
public:
    /// A network of so many bytes is on the device now. `leave` frees it.
    void came(const std::string& name, std::size_t bytes, std::function<void()> leave);
    /// A network is about to be used.
    void used(const std::string& name);
    /// Sends networks away, but not `kept`, until `bytes` are left by `left` (nothing: not known, and
    /// all stay) or none can go. Returns the names of those that left.
    std::vector<std::string> make_room(std::size_t bytes, const std::string& kept,
                                       const std::function<std::optional<std::size_t>()>& left);

private:
    struct Resident {
        std::string name;
        std::size_t bytes;
        std::function<void()> leave;
    };
    std::list<Resident> all_;  ///< longest unused first
};

}  // namespace gallop
