#include "farm/link.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <deque>
#include <string_view>

namespace gallop {
namespace {

class SoloLink final : public Link {
public:
    int rank() const override { return 0; }
    int size() const override { return 1; }
    void send(int to, std::string text) override {
        if (to == 0) texts_.push_back({0, std::move(text)});
    }
    std::optional<Received> receive() override {
        if (texts_.empty()) return {};
        Received next = std::move(texts_.front());
        texts_.pop_front();
        return next;
    }
    void forget(int) override {}
    bool quiet() override { return true; }
    bool needs_polling() const override { return false; }
    void leave(bool, int) override {}

private:
    std::deque<Received> texts_;
};

/// The number in the first of these variables that holds one. Slurm writes "4(x2),3" for tasks per
/// node: its first number is meant.
std::optional<int> number_in(std::initializer_list<const char*> variables) {
    for (const char* variable : variables) {
        const char* text = std::getenv(variable);
        if (text == nullptr) continue;
        int value = 0;
        const std::string_view digits(text);
        if (std::from_chars(digits.begin(), digits.end(), value).ec == std::errc() && value >= 0)
            return value;
    }
    return {};
}

}  // namespace

std::unique_ptr<Link> make_solo_link() { return std::make_unique<SoloLink>(); }

bool launched_by_mpi() {
    for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"})
        if (std::getenv(variable) != nullptr) return true;
    return false;
}

LocalPlace local_place() {
    if (!launched_by_mpi()) return {};
    LocalPlace place;
    place.rank = number_in({"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"}).value_or(0);
    place.size = number_in({"OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_STEP_TASKS_PER_NODE",
                            "SLURM_TASKS_PER_NODE"})
                     .value_or(1);
    place.size = std::max(place.size, place.rank + 1);
    return place;
}

}  // namespace gallop
