#pragma once

#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

#include "farm/coordinator_ledger.hpp"

namespace gallop::coordinator {

/// How an item is to be rendered: as planned, or as the ladder says.
struct Shape {
    int rung = 0;
    bool tiled_decode = false;
    int gpus = 1;
};

/// The items that nobody holds: most in buckets of equal shape and group size, in the schedule's
/// order; those that failed apart, so that they come first and elsewhere. Every call is O(log n) or,
/// over a run, O(1) amortised; four bytes an item, eight with `Order::preview`.
class WorkQueue {
public:
    /// Fills itself with the ledger's open items; the ledger must outlive it.
    WorkQueue(const Ledger& ledger, Order order);

    struct Bucket {
        std::uint16_t bucket;          ///< of the plan
        int gpus;                      ///< of its items
        std::vector<ItemIndex> items;  ///< in order; from `next` on
        std::size_t next = 0;
        std::vector<ItemIndex> returned;  ///< a heap, first item on top
        double seconds = 0;               ///< planned, of what is open in it
        std::size_t count = 0;            ///< of what is open in it
    };
    const std::vector<Bucket>& buckets() const { return buckets_; }
    /// Buckets whose items want groups of `gpus`.
    const std::vector<std::uint32_t>& of_gpus(int gpus) const;
    /// All sizes of groups for which there is work now.
    std::vector<int> sizes() const;
    /// Whether there is work for groups of `gpus`, and how many items.
    std::size_t count(int gpus) const;

    /// First item of a bucket that isn't empty (`count` > 0).
    ItemIndex head(std::uint32_t bucket);
    /// Takes it out.
    ItemIndex pop(std::uint32_t bucket);
    /// Puts an item (back) to its place in its bucket.
    void put(ItemIndex item);
    /// Whether `a` comes before `b` in the schedule.
    bool before(ItemIndex a, ItemIndex b) const;

    /// Puts an item among those that are tried again, by another host than `avoid` if possible.
    void put_retry(ItemIndex item, const Shape& shape, HostIndex avoid);
    /// The item that waits longest for a group of `gpus`, on a host other than `host`; with
    /// `anywhere`, on any. no_item if there is none.
    ItemIndex retry_head(int gpus, HostIndex host, bool anywhere);
    /// Takes it out.
    Shape pop_retry(ItemIndex item);

    /// Takes an item out of wherever it waits: it is done after all.
    void remove(ItemIndex item);

private:
    struct Retry {
        Shape shape;
        HostIndex avoid;
        std::uint64_t turn;
    };
    bool open(ItemIndex item) const { return ledger_.item(item).state == ItemState::open; }
    std::uint32_t bucket_of(ItemIndex item) const;

    const Ledger& ledger_;
    Order order_;
    std::vector<std::uint32_t> rank_;  ///< with Order::preview
    std::vector<Bucket> buckets_;
    std::unordered_map<std::uint32_t, std::uint32_t> bucket_index_;  ///< by bucket and gpus
    std::map<int, std::vector<std::uint32_t>> by_gpus_;
    std::unordered_map<ItemIndex, Retry> retries_;
    std::map<std::pair<int, HostIndex>, std::map<std::uint64_t, ItemIndex>> retry_order_;
    std::uint64_t turn_ = 0;
};

}  // namespace gallop::coordinator
