#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/node.hpp"
#include "farm/problems.hpp"

namespace gallop {

/// The parameters of a manifest (`params:`), with the values that `--param` gave, and the texts
/// that stand for them: `{{param.NAME}}`, and `{{name}}` for the run's name.
class Parameters {
public:
    /// Reads a `params` map: NAME: {type, default, values, about}, or NAME: VALUE for a text.
    /// Later declarations of a name replace earlier ones.
    void declare(const Node& params, Problems& problems);
    /// Takes `NAME=VALUE` texts of the command line. Call when all are declared.
    void assign(const std::vector<std::string>& given, Problems& problems);
    /// The run's name, once it is known.
    void set_name(std::string name);

    /// Fills in the templates of every scalar of a tree, but for keys. A scalar that is nothing but
    /// one template becomes a value of the parameter's type.
    void fill(Node& tree, Problems& problems) const;

    /// Declared names with their values, for run.json and explain.
    std::map<std::string, std::string> values() const;

private:
    struct Parameter {
        std::string type = "text";
        std::vector<std::string> words;  ///< of a choice
        std::string value;
        bool has_value = false;
        Where where;
    };
    bool fits(const Parameter& parameter, const std::string& name, const std::string& value,
              const Where& where, Problems& problems) const;
    const Parameter* find(const std::string& expression, const Where& where,
                          Problems& problems) const;

    std::map<std::string, Parameter> known_;
};

}  // namespace gallop
