#pragma once

#include <set>
#include <string>
#include <vector>

#include "model/bundle.hpp"
#include "pipeline/item.hpp"
#include "pipeline/memory_model.hpp"

namespace gallop {

/// Looks whether a model folder holds the networks that items need, by the headers of its files: no weights
/// are read. So a folder that lacks something is known before anything is rendered.
class NetworkCheck {
public:
    /// Reads the folder's architecture. Throws InputError.
    explicit NetworkCheck(const ModelChoice& choice);
    NetworkCheck(const NetworkCheck&) = delete;
    NetworkCheck& operator=(const NetworkCheck&) = delete;

    /// What is wrong with those networks of `item` that none before it needed, a text for each; most often
    /// nothing.
    std::vector<std::string> mistakes(const Item& item);

private:
    Bundle bundle_;
    MemoryModel memory_;
    std::set<std::string> known_;  ///< networks that were looked at
};

}  // namespace gallop
