#include "cli/options.hpp"

#include <algorithm>
#include <sstream>

#include "core/check.hpp"
#include "core/reader.hpp"

namespace gallop::cli {

Values parse(const std::string& command, const Arguments& arguments,
             po::options_description options, const std::vector<std::string>& positional,
             std::size_t optional) {
    std::vector<std::string> known;
    for (const auto& option : options.options()) known.push_back("--" + option->long_name());
    po::positional_options_description order;
    const auto key = [](const std::string& name) {
        return name.ends_with("...") ? name.substr(0, name.size() - 3) : name;
    };
    for (const std::string& name : positional) {
        const bool many = key(name) != name;
        if (many)
            options.add_options()(key(name).c_str(), po::value<std::vector<std::string>>());
        else
            options.add_options()(name.c_str(), po::value<std::string>());
        order.add(key(name).c_str(), many ? -1 : 1);
    }
    // No guessing: an abbreviated option may come to mean another one in a later version.
    const int style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    Values values;
    try {
        po::store(po::command_line_parser(arguments)
                      .options(options)
                      .positional(order)
                      .style(style)
                      .run(),
                  values);
        po::notify(values);
    } catch (const po::unknown_option& wrong) {
        std::string name = wrong.get_option_name();
        const std::string near = nearest(name, known);
        throw_input_error("gallop {}: unknown option {}{}; gallop {} --help lists all", command,
                          name, near.empty() ? "" : fmt::format(" (did you mean {}?)", near),
                          command);
    } catch (const po::error& wrong) {
        throw_input_error("gallop {}: {}; gallop {} --help lists all options", command,
                          wrong.what(), command);
    }
    for (std::size_t i = 0; i + optional < positional.size(); ++i)
        if (!values.contains(key(positional[i])))
            throw_input_error("gallop {}: {} is missing; gallop {} --help shows how", command,
                              key(positional[i]), command);
    return values;
}

std::string text_of(const Values& values, const std::string& name) {
    return values.contains(name) ? values[name].as<std::string>() : std::string();
}

std::vector<std::string> texts_of(const Values& values, const std::string& name) {
    return values.contains(name) ? values[name].as<std::vector<std::string>>()
                                 : std::vector<std::string>{};
}

std::vector<std::string> words_of(const std::string& list) {
    std::vector<std::string> words;
    std::istringstream in(list);
    for (std::string word; std::getline(in, word, ',');) words.push_back(word);
    return words;
}

}  // namespace gallop::cli
