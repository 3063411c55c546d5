#include "farm/weights.hpp"

#include <algorithm>
#include <set>

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "farm/canonical_json.hpp"
#include "media/digest.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// Source: the folders of the published model.
const std::set<std::string> network_folders = {"base", "distill", "540p_sr", "1080p_sr"};
const std::set<std::string> suffixes = {".safetensors", ".zst", ".json", ".model",
                                        ".pth",         ".pt",  ".ckpt", ".yaml"};

/// Digests of files that were read before.
class DigestCache {
public:
    explicit DigestCache(const fs::path& path) : path_(path) {
        std::error_code failed;
        if (path.empty() || !fs::exists(path, failed)) return;
        try {
            known_ = Json::parse(read_text(path));
        } catch (const std::exception&) {
            log_warning("digest cache ignored path={}", path.string());
        }
        if (!known_.is_object()) known_ = Json::object();
    }

    std::string digest(const fs::path& file) {
        struct stat info {};
        if (::stat(file.c_str(), &info) != 0)
            throw_input_error("{}: cannot be opened", file.string());
        const std::string state =
            fmt::format("{}:{}:{}:{}.{:09}", info.st_dev, info.st_ino, info.st_size,
                        info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
        const Json entry = known_.value(file.string(), Json());
        if (entry.is_array() && entry.size() == 2 && entry[0] == state && entry[1].is_string())
            return entry[1].get<std::string>();
        if (info.st_size > (std::int64_t{1} << 30))
            log_info("hashing path={} bytes={}", file.string(), info.st_size);
        std::string digest = digest_file(file);
        known_[file.string()] = {state, digest};
        changed_ = true;
        return digest;
    }

    void save() {
        if (!changed_ || path_.empty()) return;
        try {
            write_atomically(path_, known_.dump(1, ' ', false, Json::error_handler_t::replace));
        } catch (const Error& failed) {
            log_warning("digest cache not written reason=\"{}\"", failed.what());
        }
    }

private:
    fs::path path_;
    Json known_ = Json::object();
    bool changed_ = false;
};

std::vector<fs::path> files_of(const fs::path& folder) {
    std::vector<fs::path> files;
    for (const auto& entry :
         fs::recursive_directory_iterator(folder, fs::directory_options::follow_directory_symlink))
        if (entry.is_regular_file() && suffixes.contains(entry.path().extension().string()))
            files.push_back(entry.path());
    return files;
}

std::string digest_part(const fs::path& model, std::vector<fs::path> files, DigestCache& cache) {
    std::sort(files.begin(), files.end());
    Json rows = Json::array();
    for (const fs::path& file : files)
        rows.push_back(
            {file.lexically_relative(model).string(), fs::file_size(file), cache.digest(file)});
    return digest_text(canonical_json(rows));
}

}  // namespace

WeightsDigests digest_weights(const fs::path& model, const std::vector<std::string>& networks,
                              const fs::path& cache_path) {
    DigestCache cache(cache_path);
    WeightsDigests digests;
    try {
        const fs::path whole = fs::canonical(model);
        for (const std::string& network : networks) {
            if (!fs::is_directory(whole / network))
                throw_input_error("{}: has no folder {} (the weights of that network)",
                                  model.string(), network);
            digests[network] = digest_part(whole, files_of(whole / network), cache);
        }
        std::vector<fs::path> shared;
        for (const auto& entry : fs::directory_iterator(whole)) {
            if (network_folders.contains(entry.path().filename().string())) continue;
            if (entry.is_directory()) {
                for (fs::path& file : files_of(entry.path())) shared.push_back(std::move(file));
            } else if (entry.is_regular_file() &&
                       suffixes.contains(entry.path().extension().string())) {
                shared.push_back(entry.path());
            }
        }
        digests["shared"] = digest_part(whole, std::move(shared), cache);
    } catch (const fs::filesystem_error& failed) {
        throw_input_error("{}: {}", failed.path1().string(), failed.code().message());
    }
    cache.save();
    return digests;
}

}  // namespace gallop
