#include "farm/retry.hpp"

#include "core/check.hpp"
#include "farm/history.hpp"
#include "farm/journal.hpp"
#include "farm/problems.hpp"
#include "farm/run_lock.hpp"
#include "farm/survey.hpp"
#include "farm/time_text.hpp"

namespace gallop {

using State = ItemHistory::State;

std::vector<std::string> retry_items(const std::filesystem::path& run,
                                     const std::vector<std::string>& words) {
    if (const Pulse pulse = feel_pulse(run); pulse.live())
        throw_input_error("{}: the run is live ({}); stop it first, retry when it has ended",
                          run.string(), pulse.holder.empty() ? "its heart beats" : pulse.holder);
    const RunLock lock(run);
    RunHistory history(run);
    history.update();

    std::vector<std::size_t> items;
    for_each_word(words, [&](const std::string& word) {
        const std::size_t item = history.resolve(word);
        const ItemHistory& known = history[item];
        if (known.state == State::done)
            throw_input_error("{}: item \"{}\" is done; there is nothing to retry", run.string(),
                              word);
        if (known.state != State::quarantined && known.failed.offset == JournalPlace::none)
            throw_input_error("{}: item \"{}\" has not failed; `gallop run` renders it",
                              run.string(), word);
        items.push_back(item);
    });
    if (words.empty())
        for (std::size_t item = 0; item < history.size(); ++item)
            if (history[item].state == State::quarantined) items.push_back(item);

    std::vector<std::string> ids;
    if (items.empty()) return ids;
    // First, so that nobody takes the run for finished while items of it are open again.
    std::filesystem::remove(run / "COMPLETE");
    Journal journal(run / "journal.jsonl");
    journal.append(history.read_event());
    for (const std::size_t item : items) {
        ids.push_back(id_text(history.plan().rows[item].id));
        journal.append({{"event", "retry"}, {"id", ids.back()}, {"time", utc_text()}});
    }
    journal.flush();
    return ids;
}

}  // namespace gallop
