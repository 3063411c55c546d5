#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "farm/coordinator_types.hpp"

namespace gallop::coordinator {

enum class ItemState : std::uint8_t { open, done, quarantined };

/// An item as the coordinator knows it.
struct WorkItem {
    float seconds;         ///< planned, on the machine of the calibration
    std::uint16_t bucket;  ///< of equal shape
    std::uint8_t gpus = 1;
    ItemState state = ItemState::open;
};

using HostIndex = std::uint16_t;
inline constexpr HostIndex no_host = std::numeric_limits<HostIndex>::max();

/// What went wrong with an item so far; most have none.
struct Trouble {
    struct Failure {
        HostIndex host;
        FailureKind kind;
    };
    std::vector<Failure> failures;  ///< but those of kind `disk`
    int losses = 0;                 ///< agents and renderers that vanished while they had it
    int forgiven = 0;               ///< failures of hosts that turned out to be bad

    /// How often it was tried in vain; never less than before.
    int tries() const { return static_cast<int>(failures.size()) + losses + forgiven; }
    int count(FailureKind kind) const;
    /// Failures that speak against the item: all but out_of_memory, which climbs a ladder.
    int counted() const;
    /// Distinct hosts among the counted ones.
    int hosts() const;
    /// Distinct hosts on which it failed that way.
    int hosts(FailureKind kind) const;
};

/// Why an item that its agents and renderers vanish over is not to be tried again; empty if it is.
/// Twice as often as it may fail, for others may be to blame.
std::string too_often_lost(const Trouble& trouble, int attempts);

/// The lasting state of a run: the sum of its journal. The coordinator changes it by records only,
/// so that reading the journal again, or any prefix of it, gives the same.
class Ledger {
public:
    explicit Ledger(std::vector<WorkItem> items);

    /// One record, in the journal's order. Records that change nothing lasting are fine; so are
    /// those of items that there aren't.
    void apply(const Record& record);

    const std::vector<WorkItem>& items() const { return items_; }
    const WorkItem& item(ItemIndex index) const { return items_[index]; }
    /// Null for an item without one.
    const Trouble* trouble(ItemIndex index) const;
    const std::unordered_map<ItemIndex, Trouble>& troubles() const { return troubles_; }

    std::uint64_t done() const { return done_; }
    std::uint64_t quarantined() const { return quarantined_; }
    std::uint64_t open() const { return items_.size() - done_ - quarantined_; }
    double cost_done() const { return cost_done_; }      ///< planned seconds
    double cost_total() const { return cost_total_; }    ///< planned seconds
    double gpu_seconds() const { return gpu_seconds_; }  ///< measured, of done items

    HostIndex host(const std::string& name);
    /// Empty for no_host.
    std::string host_name(HostIndex host) const;

private:
    void set_state(ItemIndex index, ItemState state);

    std::vector<WorkItem> items_;
    std::unordered_map<ItemIndex, Trouble> troubles_;
    std::unordered_map<std::string, HostIndex> hosts_;
    std::vector<std::string> host_names_;
    std::uint64_t done_ = 0;
    std::uint64_t quarantined_ = 0;
    double cost_done_ = 0;
    double cost_total_ = 0;
    double gpu_seconds_ = 0;
};

/// Which limit of the options the run has reached (`gpu_seconds`, `stop_after_failed`), in words;
/// empty for none. Another attempt changes nothing about it.
std::string reached_limit(const CoordinatorOptions& options, const Ledger& ledger);

}  // namespace gallop::coordinator
