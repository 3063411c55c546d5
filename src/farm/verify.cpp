#include "farm/verify.hpp"

#include <algorithm>

#include "core/check.hpp"
#include "core/log.hpp"
#include "media/digest.hpp"
#include "media/h5.hpp"
#include "media/mp4_facts.hpp"
#include "media/store.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using State = ItemHistory::State;

class Verifier {
public:
    Verifier(const RunHistory& history, const VerifyOptions& options)
        : history_(history), options_(options) {}

    VerifyCount run() {
        const std::size_t all = history_.count(State::done);
        const std::size_t sample = std::min(options_.sample, all);
        std::size_t sampled = 0;
        for (std::size_t item = 0; item < history_.size(); ++item) {
            if (history_[item].state != State::done) continue;
            if (options_.progress) options_.progress(count_.clips, all);
            const PlannedItem planned = history_.planned(item);
            const Json done = history_.event(history_[item].decided);
            id_ = planned.item.id;
            name_ = planned.item.name;
            const bool whole = verify(planned, done);
            // The k-th of the sample is the clip in the middle of the k-th of `sample` equal parts.
            if (sampled < sample && count_.clips == (2 * sampled + 1) * all / (2 * sample)) {
                ++sampled;
                if (whole) render_again(planned, done);
            }
            ++count_.clips;
        }
        for (const char* folder : {"clips", "latents"}) find_strays(folder);
        count_.damaged_lines = history_.damaged_lines();
        return count_;
    }

private:
    void problem(const fs::path& file, const std::string& what) {
        ++count_.problems;
        if (options_.problem) options_.problem({id_, name_, file.generic_string(), what});
    }

    /// Runs a check that throws what is wrong. True when it held.
    template <class Check>
    bool holds(const fs::path& file, const Check& check) {
        try {
            check();
            return true;
        } catch (const Error& wrong) {
            // The texts of media begin with the path, which stands in the problem already.
            std::string what = wrong.what();
            const std::string path = (history_.directory() / file).string() + ": ";
            if (what.starts_with(path)) what.erase(0, path.size());
            problem(file, what);
            return false;
        }
    }

    bool verify(const PlannedItem& planned, const Json& done) {
        bool whole = verify_file(done, "clip", clip_path("", id_), [&](const fs::path& path) {
            const Mp4Facts facts = verify_mp4(path, planned.item.frames, planned.item.size.width,
                                              planned.item.size.height);
            const auto comment = facts.tags.find("comment");
            if (comment == facts.tags.end() || comment->second.find(id_) == std::string::npos)
                throw Error(fmt::format("its comment is \"{}\" (must hold the item's id)",
                                        comment == facts.tags.end() ? "" : comment->second));
        });
        if (done.contains("latents"))
            whole &= verify_file(done, "latents", latents_path("", id_), [&](const fs::path& path) {
                const LatentsFile file = read_latents(path);
                const auto id = file.attributes.find("id");
                if (id == file.attributes.end() || id->second != Attribute(id_))
                    throw Error("its attribute id is not the item's");
            });
        return whole;
    }

    template <class Inspect>
    bool verify_file(const Json& done, const char* kind, const fs::path& wanted,
                     const Inspect& inspect) {
        const Json row = done.value(kind, Json::object());
        const std::string where = row.value("path", "");
        if (fs::path(where) != wanted) {
            problem(wanted, fmt::format("the journal names \"{}\" as the {}", where, kind));
            return false;
        }
        const fs::path path = history_.directory() / wanted;
        std::error_code missing;
        const std::uint64_t bytes = fs::file_size(path, missing);
        if (missing) {
            problem(wanted, missing == std::errc::no_such_file_or_directory
                                ? "is not there"
                                : "cannot be looked at: " + missing.message());
            return false;
        }
        count_.bytes += bytes;
        if (bytes != row.value("bytes", std::uint64_t{0})) {
            problem(wanted, fmt::format("has {} bytes (the journal says {})", bytes,
                                        row.value("bytes", std::uint64_t{0})));
            return false;
        }
        return holds(wanted, [&] {
            const std::string digest = digest_file(path);
            if (digest != row.value("sha256", ""))
                throw Error(fmt::format("its SHA-256 is {} (the journal says {})", digest,
                                        row.value("sha256", "")));
            inspect(path);
        });
    }

    void render_again(PlannedItem planned, const Json& done) {
        if (planned.resolved.contains("base_latents"))
            return not_comparable("made by gallop promote from rounded base latents");
        planned.item.tiled_decode = planned.item.tiled_decode || done.value("tiled", false);
        fs::remove_all(options_.scratch);
        fs::create_directories(options_.scratch);
        holds(clip_path("", id_), [&] { options_.render(planned, options_.scratch); });
        ++count_.rendered;
        std::vector<std::pair<fs::path, std::string>> changed;
        for (const auto& [kind, path] :
             {std::pair{"clip", clip_path("", id_)}, {"latents", latents_path("", id_)}}) {
            if (!done.contains(kind) || !fs::exists(options_.scratch / path)) continue;
            const std::string digest = digest_file(options_.scratch / path);
            const std::string was = done[kind].value("sha256", "");
            if (digest != was)
                changed.emplace_back(
                    path, fmt::format("rendered again, its SHA-256 is {} (was {})", digest, was));
        }
        fs::remove_all(options_.scratch);
        if (!changed.empty() && (done.contains("strips") || done.contains("gpus")))
            return not_comparable(fmt::format("rendered by {} GPUs, decoded in {} strips",
                                              done.value("gpus", planned.gpus),
                                              done.value("strips", 1)));
        for (const auto& [path, what] : changed) problem(path, what);
    }

    /// A healthy clip whose bytes no other rendering has to have.
    void not_comparable(const std::string& why) {
        ++count_.not_comparable;
        log_warning("cannot be compared bit by bit id={} reason=\"{}\"", id_, why);
    }

    void find_strays(const char* folder) {
        std::error_code missing;
        for (const auto& entry :
             fs::recursive_directory_iterator(history_.directory() / folder, missing)) {
            if (!entry.is_regular_file()) continue;
            const auto item = history_.find(entry.path().stem().string());
            if (item && history_[*item].state == State::done) continue;
            ++count_.strays;
            log_info("belongs to no finished clip path={}", entry.path().string());
        }
    }

    const RunHistory& history_;
    const VerifyOptions& options_;
    VerifyCount count_;
    std::string id_, name_;
};

}  // namespace

VerifyCount verify_run(const RunHistory& history, const VerifyOptions& options) {
    CHECK(options.sample == 0 || (options.render && !options.scratch.empty()),
          "a sample of {} needs a renderer and a scratch folder", options.sample);
    return Verifier(history, options).run();
}

}  // namespace gallop
