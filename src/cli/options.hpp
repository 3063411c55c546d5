#pragma once

#include <string>
#include <vector>

#include <boost/program_options.hpp>

namespace gallop::cli {

namespace po = boost::program_options;

/// What a command was given.
using Values = po::variables_map;
using Arguments = std::vector<std::string>;

/// Parses the arguments of a command (without its name) against its options and its positional
/// arguments, in order, `optional` of which may be left out; "NAME..." takes all that are left. Every command also knows --help.
/// Throws InputError that names the argument and the nearest known one.
Values parse(const std::string& command, const Arguments& arguments,
             po::options_description options, const std::vector<std::string>& positional,
             std::size_t optional = 0);

/// The text of an option, or "".
std::string text_of(const Values& values, const std::string& name);

/// The texts of an option that may stand several times.
std::vector<std::string> texts_of(const Values& values, const std::string& name);

/// "a,b" as a and b.
std::vector<std::string> words_of(const std::string& list);

}  // namespace gallop::cli
