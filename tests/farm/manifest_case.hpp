#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "farm/expand.hpp"
#include "farm/manifest.hpp"
#include "support/temporary_folder.hpp"

namespace gallop::test {

/// A clip as a manifest asks for it.
struct Clip {
    Item item;  ///< name and seed included
    std::string cell;
    Where where;
};

/// A folder with a model and inputs, and a manifest in it.
class ManifestCase : public testing::Test {
protected:
    ManifestCase() {
        for (const char* network : {"base", "distill", "540p_sr", "1080p_sr"})
            std::filesystem::create_directories(folder_ / "model" / network);
        write("photo.png", "x");
        write("voice.wav", "x");
    }

    void write(const std::string& name, const std::string& text) {
        std::filesystem::create_directories((folder_ / name).parent_path());
        std::ofstream(folder_ / name) << text;
    }

    static std::string with_items(const std::string& items) {
        return "version: 1\nname: test\nmodel: {path: model}\n" + items;
    }

    Manifest parse(const std::string& text, const ManifestOptions& options = {}) {
        return parse_manifest(text, folder_ / "m.yaml", options);
    }

    /// All clips, in order; remarks go to `notes_`.
    std::vector<Clip> clips(const std::string& text, const ManifestOptions& options = {}) {
        std::vector<Clip> made;
        Problems problems;
        notes_ = {};
        const Manifest manifest = parse_manifest(text, folder_ / "m.yaml", options, problems);
        expand(manifest, problems, notes_, [&](const Expansion& one) {
            for (int sample = 0; sample < manifest.seeds.samples; ++sample) {
                Clip& clip = made.emplace_back(
                    Clip{one.resolved.item, label_of(one.cell), one.resolved.where});
                clip.item.name = one.sample_name(manifest.seeds, sample);
                clip.item.seed = one.sample_seed(manifest.seeds, sample);
            }
        });
        problems.raise();
        return made;
    }
    Item only(const std::string& items, const ManifestOptions& options = {}) {
        const std::vector<Clip> all = clips(with_items(items), options);
        EXPECT_EQ(all.size(), 1U);
        return all.at(0).item;
    }
    /// What `of` says of each clip.
    template <class Of>
    auto each(const std::vector<Clip>& all, const Of& of) {
        std::vector<decltype(of(all[0]))> values;
        for (const Clip& clip : all) values.push_back(of(clip));
        return values;
    }
    std::vector<std::string> names(const std::vector<Clip>& all) {
        return each(all, [](const Clip& clip) { return clip.item.name; });
    }

    /// The mistakes, with the manifest's path cut off and the folder called ROOT.
    std::vector<std::string> mistakes(const std::string& text,
                                      const ManifestOptions& options = {}) {
        try {
            clips(text, options);
        } catch (const InputError& wrong) {
            std::vector<std::string> lines;
            std::string all = wrong.what();
            const std::string path = (folder_ / "m.yaml").string() + ":";
            const std::string root = folder_.path().string();
            for (std::size_t at = 0; at <= all.size();) {
                const std::size_t end = std::min(all.find('\n', at), all.size());
                std::string line = all.substr(at, end - at);
                if (line.starts_with(path)) line = line.substr(path.size());
                for (std::size_t in; (in = line.find(root)) != std::string::npos;)
                    line.replace(in, root.size(), "ROOT");
                lines.push_back(line);
                at = end + 1;
            }
            return lines;
        }
        return {};
    }

    TemporaryFolder folder_;
    Problems notes_;
};

}  // namespace gallop::test
