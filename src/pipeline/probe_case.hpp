#pragma once

#include <charconv>
#include <filesystem>
#include <string>
#include <vector>

#include "core/node.hpp"
#include "model/checkpoint.hpp"

namespace gallop {

/// A golden case: named tensors and a map of texts.
class ProbeCase {
public:
    /// Throws InputError when the file is no safetensors file.
    explicit ProbeCase(const std::filesystem::path& path)
        : path_(path), file_(Checkpoint::open(path)) {}

    bool has(std::string_view name) const { return file_.find(name) != nullptr; }
    const std::filesystem::path& path() const { return path_; }
    const std::vector<StoredTensor>& tensors() const { return file_.tensors(); }
    Tensor read(std::string_view name) const { return file_.read(name); }
    Tensor read_f32(std::string_view name) const { return file_.read_f32(name); }
    /// What the file says of a tensor. Throws InputError when it has none of that name.
    const Shape& shape(std::string_view name) const {
        const StoredTensor* found = file_.find(name);
        if (found == nullptr) throw_input_error("{}: holds no tensor \"{}\"", path_.string(), name);
        return found->shape;
    }
    /// A floating tensor as f32 on the backend.
    Tensor upload(std::string_view name, Backend& on) const { return on.upload(read_f32(name)); }

    bool says(const std::string& key) const { return file_.metadata().count(key) > 0; }
    std::string text(const std::string& key, std::string fallback) const {
        const auto found = file_.metadata().find(key);
        return found == file_.metadata().end() ? std::move(fallback) : found->second;
    }
    Index integer(const std::string& key, Index fallback) const {
        return says(key) ? parse<Index>(key, text(key, "")) : fallback;
    }
    /// true, True or 1; false, False or 0. Throws InputError for another word.
    bool flag(const std::string& key, bool fallback) const {
        if (!says(key)) return fallback;
        const std::string word = text(key, "");
        if (word == "true" || word == "True" || word == "1") return true;
        if (word == "false" || word == "False" || word == "0") return false;
        throw_input_error("{}: metadata {} is \"{}\" (true or false)", path_.string(), key, word);
    }
    double number(const std::string& key, double fallback) const {
        return says(key) ? parse<double>(key, text(key, "")) : fallback;
    }
    /// A JSON list of integers.
    std::vector<Index> list(const std::string& key, std::vector<Index> fallback) const {
        if (!says(key)) return fallback;
        const Node node = parse_yaml(text(key, ""), path_.string() + " metadata " + key);
        std::vector<Index> made;
        for (const Node& item : node.items) made.push_back(parse<Index>(key, item.scalar));
        return made;
    }

private:
    template <class T>
    T parse(const std::string& key, const std::string& value) const {
        T made{};
        const auto [end, failed] = std::from_chars(value.data(), value.data() + value.size(), made);
        if (failed != std::errc{} || end != value.data() + value.size())
            throw_input_error("{}: metadata {} is \"{}\" (a number)", path_.string(), key, value);
        return made;
    }

    std::filesystem::path path_;
    Checkpoint file_;
};

}  // namespace gallop
