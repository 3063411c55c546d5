#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "farm/link.hpp"
#include "farm/messages.hpp"

namespace gallop::test {

/// Rank 0's link to others that say nothing; it keeps what they are told.
class RecordingLink : public Link {
public:
    explicit RecordingLink(int size) : size_(size) {}

    int rank() const override { return 0; }
    int size() const override { return size_; }
    void send(int to, std::string text) override { sent_.emplace_back(to, std::move(text)); }
    std::optional<Received> receive() override { return std::nullopt; }
    void forget(int /*rank*/) override {}
    bool quiet() override { return true; }
    bool needs_polling() const override { return true; }
    void leave(bool /*all_well*/, int /*code*/) override {}

    /// How many messages of a kind a rank was sent.
    int sent_to(int rank, const std::string& kind) const {
        int count = 0;
        for (const auto& [to, text] : sent_)
            count += to == rank && text.find("\"kind\":\"" + kind + "\"") != std::string::npos;
        return count;
    }
    /// All that was leased to a rank, in order.
    std::vector<message::Task> leased_to(int rank) const {
        std::vector<message::Task> tasks;
        for (const auto& [to, text] : sent_) {
            const message::Message said = message::parse(text);
            if (const auto* lease = std::get_if<message::Lease>(&said); lease && to == rank)
                tasks.insert(tasks.end(), lease->items.begin(), lease->items.end());
        }
        return tasks;
    }

protected:
    std::vector<std::pair<int, std::string>> sent_;  ///< rank, message

private:
    int size_;
};

}  // namespace gallop::test
