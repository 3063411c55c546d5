#include "farm/coordinator_ledger.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "core/check.hpp"

namespace gallop::coordinator {
namespace {

constexpr std::array<std::string_view, 8> failure_names = {
    "error", "input", "out_of_memory", "crash", "hung", "bad_output", "disk", "lost"};
constexpr std::array<std::string_view, 13> record_names = {
    "joined", "leased", "done",    "failed", "released", "quarantined", "drained",
    "lost",   "paused", "resumed", "retry",  "reopened", "ended"};

constexpr int fewest_failed = 5;  // of a limit in percent

}  // namespace

std::string_view failure_name(FailureKind kind) {
    return failure_names[static_cast<std::size_t>(kind)];
}

FailureKind failure_kind(std::string_view name) {
    const auto at = std::find(failure_names.begin(), failure_names.end(), name);
    CHECK(at != failure_names.end(), "no kind of failure: {}", name);
    return static_cast<FailureKind>(at - failure_names.begin());
}

std::string_view record_name(Record::What what) {
    return record_names[static_cast<std::size_t>(what)];
}

int Trouble::count(FailureKind kind) const {
    return static_cast<int>(std::count_if(failures.begin(), failures.end(),
                                          [=](const Failure& one) { return one.kind == kind; }));
}

int Trouble::counted() const {
    return static_cast<int>(failures.size()) - count(FailureKind::out_of_memory);
}

int Trouble::hosts() const {
    std::set<HostIndex> distinct;
    for (const Failure& one : failures)
        if (one.kind != FailureKind::out_of_memory) distinct.insert(one.host);
    return static_cast<int>(distinct.size());
}

int Trouble::hosts(FailureKind kind) const {
    std::set<HostIndex> distinct;
    for (const Failure& one : failures)
        if (one.kind == kind) distinct.insert(one.host);
    return static_cast<int>(distinct.size());
}

Ledger::Ledger(std::vector<WorkItem> items) : items_(std::move(items)) {
    CHECK(items_.size() < no_item, "a run has fewer than {} items", no_item);
    for (const WorkItem& item : items_) {
        cost_total_ += item.seconds;
        done_ += item.state == ItemState::done;
        quarantined_ += item.state == ItemState::quarantined;
        if (item.state == ItemState::done) cost_done_ += item.seconds;
    }
}

void Ledger::apply(const Record& record) {
    using What = Record::What;
    if (record.what == What::drained) {
        const HostIndex bad = host(record.host);
        for (auto& [item, trouble] : troubles_)
            trouble.forgiven += static_cast<int>(std::erase_if(
                trouble.failures, [=](const Trouble::Failure& one) { return one.host == bad; }));
        return;
    }
    if (record.item >= items_.size()) return;
    switch (record.what) {
        case What::done:
            if (items_[record.item].state == ItemState::done) return;
            set_state(record.item, ItemState::done);
            gpu_seconds_ += record.seconds * items_[record.item].gpus;
            troubles_.erase(record.item);
            break;
        case What::failed:
            if (record.kind != FailureKind::disk && items_[record.item].state == ItemState::open)
                troubles_[record.item].failures.push_back({host(record.host), record.kind});
            break;
        case What::released:
            if (record.kind == FailureKind::lost && items_[record.item].state == ItemState::open)
                ++troubles_[record.item].losses;
            break;
        case What::quarantined:
            if (items_[record.item].state == ItemState::open)
                set_state(record.item, ItemState::quarantined);
            break;
        case What::retry:
            if (items_[record.item].state == ItemState::done) return;
            set_state(record.item, ItemState::open);
            troubles_.erase(record.item);
            break;
        case What::reopened:
            set_state(record.item, ItemState::open);
            troubles_.erase(record.item);
            break;
        default: break;
    }
}

const Trouble* Ledger::trouble(ItemIndex index) const {
    const auto entry = troubles_.find(index);
    return entry == troubles_.end() ? nullptr : &entry->second;
}

HostIndex Ledger::host(const std::string& name) {
    const auto [entry, fresh] =
        hosts_.try_emplace(name, static_cast<HostIndex>(host_names_.size()));
    if (fresh) {
        CHECK(host_names_.size() < no_host, "more than {} hosts", no_host);
        host_names_.push_back(name);
    }
    return entry->second;
}

std::string Ledger::host_name(HostIndex host) const {
    return host == no_host ? std::string() : host_names_[host];
}

void Ledger::set_state(ItemIndex index, ItemState state) {
    WorkItem& item = items_[index];
    quarantined_ -= item.state == ItemState::quarantined;
    quarantined_ += state == ItemState::quarantined;
    if (item.state == ItemState::done) {
        --done_;
        cost_done_ -= item.seconds;
    }
    if (state == ItemState::done) {
        ++done_;
        cost_done_ += item.seconds;
    }
    item.state = state;
}

std::string reached_limit(const CoordinatorOptions& options, const Ledger& ledger) {
    if (ledger.gpu_seconds() > options.gpu_seconds)
        return fmt::format("{:.1f} GPU hours are spent (limits.gpu_hours is {:g})",
                           ledger.gpu_seconds() / 3600, options.gpu_seconds / 3600);
    const FailureLimit& limit = options.stop_after_failed;
    if (limit.value <= 0) return {};
    const auto items = static_cast<double>(ledger.items().size());
    const double most = limit.percent
                            ? std::max<double>(fewest_failed, std::ceil(limit.value / 100 * items))
                            : limit.value;
    if (static_cast<double>(ledger.quarantined()) < most) return {};
    return fmt::format("{} items are quarantined (retry.stop_after_failed is {}{})",
                       ledger.quarantined(), limit.value, limit.percent ? "%" : "");
}

}  // namespace gallop::coordinator
