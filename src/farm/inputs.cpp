#include "farm/inputs.hpp"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>
#include <sys/stat.h>

#include "core/check.hpp"
#include "core/clip.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "core/random.hpp"
#include "media/audio_file.hpp"
#include "media/digest.hpp"

namespace gallop {
namespace {

/// A record of the cache: which file, in which state, and its digest; then four bytes that tell a
/// whole record from a torn one.
struct Record {
    Id128 key;
    std::array<std::uint8_t, 32> digest;
    std::uint32_t check;

    std::uint32_t expected() const {
        return static_cast<std::uint32_t>(
            fnv1a_64({reinterpret_cast<const char*>(this), offsetof(Record, check)}));
    }
};
static_assert(sizeof(Record) == 52);

Id128 key_of(const std::string& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) throw_input_error("{}: cannot be opened", path);
    Sha256 sha;
    sha.update(fmt::format("{}\n{}:{}:{}:{}.{:09}", path, info.st_dev, info.st_ino, info.st_size,
                           info.st_mtim.tv_sec, info.st_mtim.tv_nsec));
    const auto digest = sha.finish();
    Id128 key{};
    std::copy_n(digest.begin(), key.size(), key.begin());
    return key;
}

}  // namespace

std::size_t InputDigests::Hash::operator()(const Id128& id) const {
    std::size_t value = 0;
    std::memcpy(&value, id.data(), sizeof value);
    return value;
}

InputDigests::InputDigests(const std::filesystem::path& cache) {
    if (cache.empty()) return;
    std::error_code failed;
    std::filesystem::create_directories(cache.parent_path(), failed);
    std::ifstream file(cache, std::ios::binary);
    Record record{};
    std::uint64_t whole = 0;
    while (file.read(reinterpret_cast<char*>(&record), sizeof record)) {
        if (record.check != record.expected()) break;
        known_.insert_or_assign(record.key, record.digest);
        whole += sizeof record;
    }
    if (std::filesystem::exists(cache, failed) &&
        std::filesystem::file_size(cache, failed) != whole)
        std::filesystem::resize_file(cache, whole, failed);  // a torn record hides those behind it
    added_.open(cache, std::ios::binary | std::ios::app);
    if (!added_) log_warning("digest cache not written path={}", cache.string());
}

std::string InputDigests::digest(const std::string& path) {
    if (path.empty() || path == last_path_) return path.empty() ? path : last_digest_;
    const Id128 key = key_of(path);
    auto found = known_.find(key);
    if (found == known_.end()) {
        const std::string hex = digest_file(path);
        Record record{key, {}, 0};
        for (std::size_t i = 0; i < 32; ++i)
            record.digest[i] =
                static_cast<std::uint8_t>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
        record.check = record.expected();
        found = known_.emplace(key, record.digest).first;
        if (added_) added_.write(reinterpret_cast<const char*>(&record), sizeof record);
    }
    last_path_ = path;
    last_digest_ = to_hex(found->second);
    return last_digest_;
}

Index SoundLengths::samples_of(const std::string& path, Index most) {
    try {
        return load_audio(path, most).numel();
    } catch (const InputError&) {
        unreadable_.insert(path);
        throw;
    }
}

bool SoundLengths::measure(ResolvedItem& resolved, const std::string& name, Problems& problems,
                           Problems& notes) {
    Item& item = resolved.item;
    const int wanted = item.audio_latents;
    const Index most = resolved.frames > 0 ? Index{wanted} * samples_per_latent
                                           : samples_of_seconds(resolved.seconds);
    try {
        const std::uint64_t key = fnv1a_64(fmt::format("{}\n{}", item.audio, most));
        auto found = samples_.find(key);
        if (found == samples_.end()) {
            // A missing file is the manifest's mistake, and an unreadable one is said once.
            std::error_code failed;
            if (unreadable_.contains(item.audio) ||
                !std::filesystem::is_regular_file(item.audio, failed))
                return false;
            found = samples_.emplace(key, samples_of(item.audio, most + 1)).first;
        }
        const Index samples = std::min(found->second, most);
        const auto seconds = [](Index count) {
            return static_cast<double>(count) / driving_sample_rate;
        };
        const Length length = length_of_sound(samples);
        if (length.audio_latents == 0)
            throw_input_error(
                "item \"{}\": {} is too short: {} samples at 51,200 Hz (2048 needed for one "
                "picture)",
                name, item.audio, samples);
        if (resolved.frames > 0 && length.audio_latents < wanted)
            throw_input_error("item \"{}\": {} lasts {:.2f} s, but {} frames need {:.2f} s", name,
                              item.audio, seconds(samples), resolved.frames, seconds(most));
        if (found->second > most && resolved.frames == 0 && !resolved.seconds_given)
            notes.add(resolved.where,
                      fmt::format("item \"{}\": only the first {:g} s of {} are heard (seconds is "
                                  "not given)",
                                  name, resolved.seconds, item.audio));
        if (resolved.frames == 0) {
            item.frames = length.frames;
            item.audio_latents = length.audio_latents;
        }
        item.audio_samples = samples;
        return true;
    } catch (const InputError& wrong) {
        problems.add(resolved.where, wrong.what());
        return false;
    }
}

}  // namespace gallop
