#include "farm/plan.hpp"

#include <algorithm>
#include <fstream>
#include <optional>
#include <set>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "farm/canonical_json.hpp"
#include "farm/id_set.hpp"
#include "farm/inputs.hpp"
#include "farm/lock_text.hpp"
#include "farm/plan_files.hpp"
#include "farm/prompt_notes.hpp"
#include "media/digest.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::size_t most_buckets = 60'000;  // an item's bucket is a 16-bit number

std::string bucket_of(const Item& item, int gpus) {
    std::string bucket = fmt::format("{}-{}x{}-{}", item.variant, item.base_size.width,
                                     item.base_size.height, item.frames);
    if (!item.sr.empty())
        bucket += fmt::format("-{}-{}x{}", item.sr, item.size.width, item.size.height);
    if (item.decoder == VideoDecoder::wan) bucket += "-wan";
    if (gpus > 1) bucket += fmt::format("-{}gpus", gpus);
    return bucket;
}

/// Makes one plan.
class Planner {
public:
    Planner(const Manifest& manifest, const PlanOptions& options)
        : manifest_(manifest),
          options_(options),
          cost_(manifest, options.calibration),
          inputs_(options.digest_cache.empty() ? fs::path() : options.digest_cache / "inputs.bin"),
          prompts_(manifest.model) {
        RunConfig& config = result_.config;
        static_cast<RunRequest&>(config) = manifest;
        config.manifest = fs::absolute(manifest.path).string();
        config.manifest_digest = manifest.digest;
        config.device = options.calibration.device;
        if (!manifest.model.arch.empty()) config.arch_digest = digest_file(manifest.model.arch);
        for (const auto& [axis, values] : manifest.sweep.axes()) config.sweep[axis] = values;
        if (options.extend) take_earlier();
        if (!options.directory.empty()) files_.emplace(options.directory, earlier_);
    }

    PlanResult make() {
        expand(manifest_, problems_, result_.notes, [this](const Expansion& one) { add(one); });
        problems_.raise();
        if (options_.extend) refuse_removals();
        RunConfig& config = result_.config;
        if (config.items == 0) throw_input_error("{}: no items", manifest_.path.string());
        for (std::size_t i = 0; i < config.buckets.size(); ++i) finish(config.buckets[i], sums_[i]);
        result_.added = options_.extend ? config.items - earlier_->items : config.items;
        if (files_) {
            files_->commit(config);
            result_.sample = representatives();
        }
        return std::move(result_);
    }

private:
    /// What a bucket's items add up to.
    struct Sum {
        PerStage stages{};
        double seconds = 0;
        double memory_bytes = 0;
        double clip_bytes = 0;
        double latents_bytes = 0;
        PlanRow first{};
    };

    void take_earlier() {
        earlier_ = read_run_config(options_.directory);
        refuse_other_request(*earlier_, manifest_);
        RunConfig here = *earlier_;
        here.model = manifest_.model;
        refuse_changed_model(here, options_.digest_cache);
        RunConfig& config = result_.config;
        config.weights = earlier_->weights;
        config.arch_digest = earlier_->arch_digest;
        config.texts = earlier_->texts;
        config.items = earlier_->items;
        config.buckets = earlier_->buckets;
        const PlanIndex index = read_plan_index(options_.directory, *earlier_);
        sums_.resize(config.buckets.size());
        for (std::size_t i = 0; i < config.buckets.size(); ++i) {
            const Bucket& bucket = config.buckets[i];
            buckets_.emplace(bucket.name, i);
            const auto items = static_cast<double>(bucket.items);
            Sum& sum = sums_[i];
            sum.seconds = bucket.seconds * items;
            for (std::size_t s = 0; s < stage_count; ++s)
                if (const auto found = bucket.stages.find(name_of(static_cast<Stage>(s)));
                    found != bucket.stages.end())
                    sum.stages[s] = found->second * items;
            sum.memory_bytes = static_cast<double>(bucket.memory_bytes);
            sum.clip_bytes = static_cast<double>(bucket.clip_bytes) * items;
            sum.latents_bytes = static_cast<double>(bucket.latents_bytes) * items;
        }
        for (const PlanRow& row : index.rows) {
            old_.insert(row.id);
            result_.seconds.push_back(row.seconds);
            if (sums_[row.bucket].first.bytes == 0) sums_[row.bucket].first = row;
        }
        kept_.assign(old_.slots(), false);
    }

    /// Refuses an extension that would drop or change items: those of the run must all come again.
    void refuse_removals() {
        std::vector<std::string> gone;
        std::uint64_t count = 0;
        for (const PlanRow& row : read_plan_index(options_.directory, *earlier_).rows) {
            const std::size_t slot = old_.find(row.id);
            if (slot == IdSet::absent || kept_[slot]) continue;
            if (++count <= 3)
                gone.push_back(
                    read_planned_item(options_.directory, *earlier_, row.offset, row.bytes)
                        .item.name);
        }
        if (count > 0)
            throw_input_error(
                "{}: {} of its {} items are no longer in the manifest, or were changed there: {}{} "
                "(an extension only adds items); put them back, or plan into a new folder",
                options_.directory.string(), count, earlier_->items, fmt::join(gone, ", "),
                count > gone.size() ? ", …" : "");
    }

    void add(const Expansion& one) {
        ResolvedItem resolved = one.resolved;
        Item& item = resolved.item;
        prompts_.check(one, problems_, result_.notes);
        if (!item.audio.empty() && !sounds_.measure(resolved, one.name, problems_, result_.notes))
            return;
        std::string image;
        std::string audio;
        try {
            image = inputs_.digest(item.image);
            audio = inputs_.digest(item.audio);
        } catch (const InputError& wrong) {
            problems_.add(resolved.where, wrong.what());
            return;
        }
        if (options_.networks != nullptr)
            look_at_networks(*options_.networks, manifest_, item, problems_);
        if (!problems_.empty()) return;  // nothing will come of it but more mistakes
        const ItemCost cost = cost_.of(item);
        const std::string name = bucket_of(item, cost.gpus);
        const auto [found, fresh] = buckets_.try_emplace(name, result_.config.buckets.size());
        if (fresh) {
            if (found->second >= most_buckets)
                throw_input_error("{}: more than {} different shapes of clips",
                                  manifest_.path.string(), most_buckets);
            result_.config.buckets.emplace_back().name = name;
            result_.config.buckets.back().gpus = cost.gpus;
            sums_.emplace_back();
        }
        const Json cell_json = json_of(one.cell);
        const LockLine line(item, image, audio, digest_of_text(item.negative_prompt),
                            constants(item.variant, item.sr),
                            cell_json.is_null() ? "" : canonical_json(cell_json), name,
                            cost.seconds, cost.gpus);
        for (int sample = 0; sample < manifest_.seeds.samples; ++sample) {
            const std::uint64_t seed = one.sample_seed(manifest_.seeds, sample);
            const Id128 id = line.id(seed, sha_);
            const std::string sample_name = one.sample_name(manifest_.seeds, sample);
            if (const std::size_t slot = old_.find(id); slot != IdSet::absent) {
                // Known from the earlier plan, under this name or another.
                if (kept_[slot]) duplicate(id, sample_name);
                kept_[slot] = true;
            } else if (!fresh_.insert(id)) {
                duplicate(id, sample_name);
            } else {
                count(found->second, cost);
                if (files_)
                    files_->add_item(
                        [&](std::string& out) { line.write(seed, id, sample_name, out); }, id,
                        sums_[found->second].first);
            }
        }
    }

    void duplicate(const Id128& id, const std::string& name) {
        ++result_.config.duplicates;
        if (files_) files_->add_duplicate(id, name);
    }

    void count(std::size_t bucket, const ItemCost& cost) {
        RunConfig& config = result_.config;
        ++config.items;
        ++config.buckets[bucket].items;
        Sum& sum = sums_[bucket];
        for (std::size_t s = 0; s < stage_count; ++s) sum.stages[s] += cost.stages[s];
        sum.seconds += cost.seconds;
        sum.memory_bytes = std::max(sum.memory_bytes, cost.memory_bytes);
        sum.clip_bytes += cost.clip_bytes;
        sum.latents_bytes += cost.latents_bytes;
        result_.seconds.push_back(static_cast<float>(cost.seconds));
    }

    void finish(Bucket& bucket, const Sum& sum) {
        const auto items = static_cast<double>(std::max<std::uint64_t>(bucket.items, 1));
        bucket.seconds = sum.seconds / items;
        bucket.stages.clear();
        for (std::size_t s = 0; s < stage_count; ++s) {
            if (sum.stages[s] > 0)
                bucket.stages[name_of(static_cast<Stage>(s))] = sum.stages[s] / items;
            result_.stages[s] += sum.stages[s];
        }
        bucket.memory_bytes = static_cast<std::uint64_t>(sum.memory_bytes);
        bucket.clip_bytes = static_cast<std::uint64_t>(sum.clip_bytes / items);
        bucket.latents_bytes = static_cast<std::uint64_t>(sum.latents_bytes / items);
        result_.clip_bytes += sum.clip_bytes;
        result_.latents_bytes += sum.latents_bytes;
        result_.gpu_seconds += sum.seconds * bucket.gpus;
        result_.files += bucket.items * (sum.latents_bytes > 0 ? 2 : 1);
    }

    /// One item of each bucket, the buckets in which most time is spent first.
    std::vector<PlanRow> representatives() const {
        std::vector<const Sum*> order;
        for (const Sum& sum : sums_)
            if (sum.first.bytes > 0) order.push_back(&sum);
        std::stable_sort(order.begin(), order.end(),
                         [](const Sum* a, const Sum* b) { return a->seconds > b->seconds; });
        std::vector<PlanRow> rows;
        for (const Sum* sum : order) rows.push_back(sum->first);
        return rows;
    }

    const std::string& digest_of_text(const std::string& text) {
        static const std::string none;
        if (text.empty()) return none;
        if (text != last_text_) {
            last_text_ = text;
            last_text_digest_ = digest_text(text);
            result_.config.texts.emplace(last_text_digest_, text);
        }
        return last_text_digest_;
    }

    /// The constants of an item's networks, whose weights are hashed when first met.
    const LockConstants& constants(const std::string& variant, const std::string& sr) {
        const auto found = constants_.find({variant, sr});
        if (found != constants_.end()) return found->second;
        RunConfig& config = result_.config;
        for (const std::string& network : {variant, sr})
            if (!network.empty() && !config.weights.contains(network))
                config.weights.merge(
                    digest_model(manifest_.model, {network}, options_.digest_cache));
        return constants_
            .emplace(std::pair{variant, sr}, LockConstants(item_constants(config, variant, sr)))
            .first->second;
    }

    const Manifest& manifest_;
    const PlanOptions& options_;
    CostModel cost_;
    InputDigests inputs_;
    SoundLengths sounds_;
    PromptNotes prompts_;
    Problems problems_;
    PlanResult result_;
    std::optional<RunConfig> earlier_;
    std::optional<PlanFiles> files_;
    IdSet old_, fresh_;
    std::vector<bool> kept_;  ///< by slot of old_: in the manifest again
    std::map<std::string, std::size_t, std::less<>> buckets_;
    std::vector<Sum> sums_;
    std::map<std::pair<std::string, std::string>, LockConstants> constants_;
    std::string last_text_, last_text_digest_;
    Sha256 sha_;
};

}  // namespace

void look_at_networks(NetworkCheck& networks, const Manifest& manifest, const Item& item,
                      Problems& problems) {
    for (std::string& wrong : networks.mistakes(item))
        problems.add(manifest.place("model.path"), std::move(wrong));
}

WeightsDigests digest_model(const ModelRequest& model, const std::vector<std::string>& networks,
                            const fs::path& digest_cache) {
    return digest_weights(model.path, networks,
                          digest_cache.empty() ? fs::path() : digest_cache / "digests.json");
}

PlanResult make_plan(const Manifest& manifest, const PlanOptions& options) {
    return Planner(manifest, options).make();
}

RunConfig ensure_plan(const Manifest& manifest, const PlanOptions& options) {
    const bool planned = fs::exists(options.directory / "run.json");
    if (!planned || options.extend) {
        PlanOptions how = options;
        how.extend = planned;
        PlanResult made = make_plan(manifest, how);
        for (const Remark& note : made.notes.all())
            log_warning("{}: {}", to_string(note.where), note.text);
        return std::move(made.config);
    }
    RunConfig config = read_run_config(options.directory);
    if (config.name != manifest.name)
        throw_input_error("{}: holds the run {}, not {}; choose another --out",
                          options.directory.string(), config.name, manifest.name);
    const bool changed =
        !config.manifest_digest.empty() && config.manifest_digest != manifest.digest;
    if (changed && options.overridden)
        throw_input_error(
            "{}: the plan in {} was made of another state of the manifest, or with other --set, "
            "--param and "
            "--precision, and stays as it is; leave them out to go on with it, or choose another "
            "--out",
            manifest.path.string(), options.directory.string());
    if (changed)
        log_warning(
            "{}: changed since {} was planned, or asked for with other --set and --param; the plan "
            "stays as it is (--extend adds new items, another --out begins anew)",
            manifest.path.string(), options.directory.string());
    refuse_changed_model(config, options.digest_cache);
    return config;
}

}  // namespace gallop
