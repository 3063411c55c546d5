// What must hold in a simulated run, and how well it went.
#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "tests/farm/simulation.hpp"

namespace gallop::test::simulation {

void Simulator::check_alone(std::uint32_t n, ItemIndex item) {
    const bool given_up = lost_lives_.count({static_cast<int>(n), nodes_[n].life}) > 0;
    for (const auto& [agent, life] : renders_[item])
        if (!given_up && lost_lives_.count({agent, life}) == 0 && agent != static_cast<int>(n))
            broken(fmt::format("item {} is rendered by live agents {} and {}", item, agent, n));
    renders_[item].insert({static_cast<int>(n), nodes_[n].life});
}

void Simulator::check_end(Outcome outcome) {
    const Ledger& ledger = coordinator_->ledger();
    for (ItemIndex i = 0; i < s_.items.size(); ++i) {
        const bool done = ledger.item(i).state == ItemState::done;
        if (done) {
            ++report_.done;
            if (done_records_[i] != 1)
                broken(fmt::format("item {} has {} records of being done", i, done_records_[i]));
        } else if (ledger.item(i).state == ItemState::quarantined) {
            ++report_.quarantined;
            check_quarantined(i);
        } else {
            broken(fmt::format("item {} was left open", i));
        }
    }
    if ((outcome == Outcome::complete) != (report_.quarantined == 0))
        broken("the outcome is not what the items say");
}

void Simulator::check_quarantined(ItemIndex index) {
    using Kind = SimItem::Kind;
    const Kind kind = s_.items[index].kind;
    if ((kind != Kind::good && kind != Kind::large) || s_.items[index].gpus > most_gpus()) return;
    std::vector<std::string> failures;
    int losses = 0;
    std::size_t told = 0;
    for (const Record& record : journal_) {
        if (record.what == Record::What::drained) std::erase(failures, record.host);
        if (record.item != index) continue;
        if (record.what == Record::What::released && record.kind == FailureKind::lost) ++losses;
        if (record.what != Record::What::failed) continue;
        ++told;
        if (record.kind != FailureKind::disk && record.kind != FailureKind::out_of_memory)
            failures.push_back(record.host);
    }
    if (told > inflicted_[index])
        broken(fmt::format("item {} has {} failures in the journal, {} in truth", index, told,
                           inflicted_[index]));
    const std::set<std::string> hosts(failures.begin(), failures.end());
    const bool enough = (s_.options.other_host && hosts.size() >= 2) ||
                        static_cast<int>(failures.size()) >= s_.options.attempts ||
                        losses >= 2 * s_.options.attempts;
    if (!enough)
        broken(fmt::format("good item {} is quarantined after {} failures on {} hosts, {} losses",
                           index, failures.size(), hosts.size(), losses));
}

int Simulator::most_gpus() const {
    int most = 0;
    for (const SimNode& node : s_.nodes) most = std::max(most, node.gpus);
    return most;
}

void Simulator::measure() {
    double gpus = 0;
    double idle = 0;
    double speed = 0;
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
        speed += s_.nodes[n].speed * s_.nodes[n].gpus;
        for (const SimSlot& slot : nodes_[n].slots) {
            gpus += slot.gpus;
            idle += slot.gpus * (report_.makespan - slot.last_end);
        }
    }
    double work = 0;
    for (const SimItem& item : s_.items) work += item.seconds * item.gpus;
    if (report_.makespan > 0) {
        report_.tail_idle = idle / (gpus * report_.makespan);
        report_.efficiency = work / (speed * report_.makespan);
        report_.idle_bound = 1 - work / (speed * report_.lower_bound);
    }
}

void Simulator::tell_of_open() {
    for (ItemIndex i = 0; i < s_.items.size() && report_.broken.size() < most_broken; ++i) {
        if (coordinator_->ledger().item(i).state != ItemState::open) continue;
        const auto holder = holder_.find(i);
        broken(fmt::format(
            "no end: item {} is open, {}", i,
            holder == holder_.end()
                ? "nobody's"
                : fmt::format("leased to {}.{}", holder->second.first, holder->second.second)));
    }
    for (const AgentView& agent : coordinator_->snapshot(now_).agents)
        watch(fmt::format("agent {} is {}, {} slots", agent.agent, agent.state, agent.slots));
}

}  // namespace gallop::test::simulation

namespace gallop::test {

double lower_bound(const Scenario& scenario) {
    std::vector<double> speeds;
    for (const SimNode& node : scenario.nodes)
        speeds.insert(speeds.end(), static_cast<std::size_t>(node.gpus), node.speed);
    std::vector<double> lengths;
    double work = 0;
    for (const SimItem& item : scenario.items) {
        lengths.push_back(item.seconds * (item.gpus == 1 ? 1 : 0));
        work += item.seconds * item.gpus;
    }
    std::sort(lengths.rbegin(), lengths.rend());
    double bound = work / std::accumulate(speeds.begin(), speeds.end(), 0.0);
    // The k longest items, each at least as long as the k-th: by then, the slots must have had time
    // for k of that length.
    const std::size_t stride = std::max<std::size_t>(1, lengths.size() / 100);
    for (std::size_t k = 1; k <= lengths.size(); k += stride) {
        const double length = lengths[k - 1];
        const auto fits = [&](double end) {
            double count = 0;
            for (const double speed : speeds) count += std::floor(end * speed / length + 1e-9);
            return count >= static_cast<double>(k);
        };
        if (length <= 0 || fits(bound)) continue;
        double low = bound;
        double high = 2 * bound + length / *std::min_element(speeds.begin(), speeds.end()) *
                                      static_cast<double>(k);
        while (high - low > 1e-6 * high) (fits((low + high) / 2) ? high : low) = (low + high) / 2;
        bound = low;
    }
    return bound;
}

}  // namespace gallop::test
