#pragma once

#include <string>
#include <vector>

#include "farm/manifest.hpp"

namespace gallop {

/// One value of an item or of its run, and who set it.
struct Explained {
    std::string field;
    std::string value;
    std::string layer;  ///< "defaults", "sweep cell", …; "default" when nobody set it
    Where where;        ///< without a file when nobody set it
};

/// Every value of the item with this name or id, as the manifest makes it now, and the length that
/// follows from them and its driving sound; then those of the run. Names are those of clips; that
/// of an item stands for its first clip. Empty when there is no such item. Throws InputError for a
/// manifest that is wrong.
std::vector<Explained> explain(const Manifest& manifest, const std::string& name);

}  // namespace gallop
