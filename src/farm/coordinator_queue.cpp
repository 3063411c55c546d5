#include "farm/coordinator_queue.hpp"

#include <algorithm>

#include "core/check.hpp"

namespace gallop::coordinator {
namespace {

std::uint32_t key_of(const WorkItem& item) { return item.bucket * 256U + item.gpus; }

/// Ranks 0 … n - 1 so that the first few show the whole: first, last, middle, then the middles of
/// what is between.
std::vector<std::uint32_t> preview_ranks(std::size_t n) {
    std::vector<std::uint32_t> rank(n);
    if (n == 0) return rank;
    std::uint32_t next = 0;
    rank[0] = next++;
    if (n > 1) rank[n - 1] = next++;
    std::vector<std::pair<std::size_t, std::size_t>> gaps = {{0, n - 1}};  // ends are ranked
    for (std::size_t at = 0; at < gaps.size(); ++at) {
        const auto [low, high] = gaps[at];
        if (high - low < 2) continue;
        const std::size_t middle = low + (high - low) / 2;
        rank[middle] = next++;
        gaps.emplace_back(low, middle);
        gaps.emplace_back(middle, high);
    }
    return rank;
}

}  // namespace

WorkQueue::WorkQueue(const Ledger& ledger, Order order) : ledger_(ledger), order_(order) {
    const std::vector<WorkItem>& items = ledger.items();
    if (order == Order::preview) rank_ = preview_ranks(items.size());
    for (ItemIndex i = 0; i < items.size(); ++i) {
        CHECK(items[i].gpus > 0, "item {} wants a group of no GPU", i);
        const auto [entry, fresh] = bucket_index_.try_emplace(
            key_of(items[i]), static_cast<std::uint32_t>(buckets_.size()));
        if (fresh) {
            by_gpus_[items[i].gpus].push_back(entry->second);
            buckets_.push_back({items[i].bucket, items[i].gpus, {}, 0, {}, 0, 0});
        }
        if (items[i].state != ItemState::open) continue;
        Bucket& bucket = buckets_[entry->second];
        bucket.items.push_back(i);
        bucket.seconds += items[i].seconds;
        ++bucket.count;
    }
    for (Bucket& bucket : buckets_) {
        bucket.items.shrink_to_fit();
        std::sort(bucket.items.begin(), bucket.items.end(),
                  [this](ItemIndex a, ItemIndex b) { return before(a, b); });
    }
}

const std::vector<std::uint32_t>& WorkQueue::of_gpus(int gpus) const {
    static const std::vector<std::uint32_t> none;
    const auto entry = by_gpus_.find(gpus);
    return entry == by_gpus_.end() ? none : entry->second;
}

std::vector<int> WorkQueue::sizes() const {
    std::vector<int> result;
    for (const auto& [gpus, buckets] : by_gpus_)
        if (count(gpus) > 0) result.push_back(gpus);
    for (const auto& [key, items] : retry_order_)
        if (by_gpus_.find(key.first) == by_gpus_.end() &&
            (result.empty() || result.back() != key.first))
            result.push_back(key.first);
    return result;
}

std::size_t WorkQueue::count(int gpus) const {
    std::size_t sum = 0;
    for (const std::uint32_t bucket : of_gpus(gpus)) sum += buckets_[bucket].count;
    for (auto entry = retry_order_.lower_bound({gpus, 0});
         entry != retry_order_.end() && entry->first.first == gpus; ++entry)
        sum += entry->second.size();
    return sum;
}

bool WorkQueue::before(ItemIndex a, ItemIndex b) const {
    if (order_ == Order::preview) return rank_[a] < rank_[b];
    if (order_ == Order::longest_first) {
        const float left = ledger_.item(a).seconds;
        const float right = ledger_.item(b).seconds;
        if (left != right) return left > right;
    }
    return a < b;
}

std::uint32_t WorkQueue::bucket_of(ItemIndex item) const {
    return bucket_index_.at(key_of(ledger_.item(item)));
}

ItemIndex WorkQueue::head(std::uint32_t index) {
    Bucket& bucket = buckets_[index];
    const auto later = [this](ItemIndex a, ItemIndex b) { return before(b, a); };
    // What was done while it waited is dropped here, when it comes up.
    while (bucket.next < bucket.items.size() && !open(bucket.items[bucket.next])) ++bucket.next;
    while (!bucket.returned.empty() && !open(bucket.returned.front())) {
        std::pop_heap(bucket.returned.begin(), bucket.returned.end(), later);
        bucket.returned.pop_back();
    }
    const bool fresh = bucket.next < bucket.items.size();
    CHECK(fresh || !bucket.returned.empty(), "bucket {} is empty", index);
    if (bucket.returned.empty()) return bucket.items[bucket.next];
    if (!fresh || before(bucket.returned.front(), bucket.items[bucket.next]))
        return bucket.returned.front();
    return bucket.items[bucket.next];
}

ItemIndex WorkQueue::pop(std::uint32_t index) {
    const ItemIndex item = head(index);
    Bucket& bucket = buckets_[index];
    if (bucket.next < bucket.items.size() && bucket.items[bucket.next] == item) {
        ++bucket.next;
    } else {
        std::pop_heap(bucket.returned.begin(), bucket.returned.end(),
                      [this](ItemIndex a, ItemIndex b) { return before(b, a); });
        bucket.returned.pop_back();
    }
    bucket.seconds = --bucket.count == 0 ? 0 : bucket.seconds - ledger_.item(item).seconds;
    return item;
}

void WorkQueue::put(ItemIndex item) {
    Bucket& bucket = buckets_[bucket_of(item)];
    bucket.returned.push_back(item);
    std::push_heap(bucket.returned.begin(), bucket.returned.end(),
                   [this](ItemIndex a, ItemIndex b) { return before(b, a); });
    bucket.seconds += ledger_.item(item).seconds;
    ++bucket.count;
}

void WorkQueue::put_retry(ItemIndex item, const Shape& shape, HostIndex avoid) {
    retries_[item] = {shape, avoid, turn_};
    retry_order_[{shape.gpus, avoid}][turn_++] = item;
}

ItemIndex WorkQueue::retry_head(int gpus, HostIndex host, bool anywhere) {
    std::uint64_t turn = turn_;
    ItemIndex best = no_item;
    for (auto entry = retry_order_.lower_bound({gpus, 0});
         entry != retry_order_.end() && entry->first.first == gpus; ++entry) {
        if (entry->first.second == host && !anywhere) continue;
        if (const auto& [first, item] = *entry->second.begin(); first < turn) {
            turn = first;
            best = item;
        }
    }
    return best;
}

Shape WorkQueue::pop_retry(ItemIndex item) {
    const Retry retry = retries_.at(item);
    const auto entry = retry_order_.find({retry.shape.gpus, retry.avoid});
    entry->second.erase(retry.turn);
    if (entry->second.empty()) retry_order_.erase(entry);
    retries_.erase(item);
    return retry.shape;
}

void WorkQueue::remove(ItemIndex item) {
    if (retries_.count(item) > 0) {
        pop_retry(item);
        return;
    }
    Bucket& bucket = buckets_[bucket_of(item)];
    bucket.seconds = --bucket.count == 0 ? 0 : bucket.seconds - ledger_.item(item).seconds;
}

}  // namespace gallop::coordinator
