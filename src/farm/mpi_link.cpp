#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <list>
#include <thread>
#include <vector>

#include <mpi.h>
#include <unistd.h>

#include "core/check.hpp"
#include "core/log.hpp"
#include "farm/link.hpp"
#include "farm/messages.hpp"

namespace gallop {
namespace {

constexpr int tag = 1;

/// How long the library may take to say goodbye before the process ends without it.
constexpr std::chrono::seconds leave_patience{10};

void check_mpi(int code, const char* what) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = {};
    int length = 0;
    MPI_Error_string(code, text, &length);
    throw Error(fmt::format("{}: {}", what, text));
}

/// A message on its way, in either direction. MPI holds the address of `text`.
struct Transfer {
    int peer = 0;
    std::string text;
    MPI_Request request = MPI_REQUEST_NULL;
    bool finished = false;
};

class MpiLink final : public Link {
public:
    MpiLink() {
        // Small texts need no fabric. Open MPI's plainest way, over TCP and shared memory, begins in a
        // third of the time and waits for no library of a network's; a site may still choose.
        ::setenv("OMPI_MCA_pml", "ob1", 0);
        int provided = 0;
        check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided),
                  "MPI_Init_thread");
        if (provided < MPI_THREAD_FUNNELED)
            throw Error("this MPI has no threads (MPI_THREAD_FUNNELED is needed)");
        MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
        check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "MPI_Comm_rank");
        check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size_), "MPI_Comm_size");
    }

    int rank() const override { return rank_; }
    int size() const override { return size_; }
    bool needs_polling() const override { return size_ > 1; }

    void send(int to, std::string text) override {
        if (to == rank_) return arrived_.push_back({rank_, std::move(text)});
        Transfer& transfer = sends_.emplace_back();
        transfer.peer = to;
        transfer.text = std::move(text);
        const int code = MPI_Isend(transfer.text.data(), static_cast<int>(transfer.text.size()),
                                   MPI_CHAR, to, tag, MPI_COMM_WORLD, &transfer.request);
        // The receiver's death, where this MPI tells it. Its silence is what counts.
        if (code != MPI_SUCCESS) sends_.pop_back();
    }

    std::optional<Received> receive() override {
        finish_sends();
        begin_receives();
        finish_receives();
        if (arrived_.empty()) return {};
        Received next = std::move(arrived_.front());
        arrived_.pop_front();
        return next;
    }

    void forget(int rank) override {
        // MPI may still read the text, so it stays; there is one such list a dead rank.
        for (auto transfer = sends_.begin(); transfer != sends_.end();) {
            const auto next = std::next(transfer);
            if (transfer->peer == rank) forgotten_.splice(forgotten_.end(), sends_, transfer);
            transfer = next;
        }
    }

    bool quiet() override {
        finish_sends();
        return sends_.empty();
    }

    void leave(bool all_well, int code) override {
        std::fflush(stdout);
        std::fflush(stderr);
        if (!all_well) ::_exit(code);
        // The thread outlives this call on purpose: the process ends before it, or by it.
        std::thread([code] {
            std::this_thread::sleep_for(leave_patience);
            ::_exit(code);
        }).detach();
        MPI_Finalize();
    }

private:
    void finish_sends() {
        for (auto transfer = sends_.begin(); transfer != sends_.end();) {
            int done = 0;
            const int code = MPI_Test(&transfer->request, &done, MPI_STATUS_IGNORE);
            transfer =
                done != 0 || code != MPI_SUCCESS ? sends_.erase(transfer) : std::next(transfer);
        }
    }

    void begin_receives() {
        for (;;) {
            int there = 0;
            MPI_Status status;
            if (MPI_Iprobe(MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, &there, &status) != MPI_SUCCESS ||
                there == 0)
                return;
            int bytes = 0;
            MPI_Get_count(&status, MPI_CHAR, &bytes);
            Transfer& transfer = receives_.emplace_back();
            transfer.peer = status.MPI_SOURCE;
            transfer.text.resize(static_cast<std::size_t>(std::max(bytes, 0)));
            const int code = MPI_Irecv(transfer.text.data(), bytes, MPI_CHAR, status.MPI_SOURCE,
                                       tag, MPI_COMM_WORLD, &transfer.request);
            if (code != MPI_SUCCESS) receives_.pop_back();
        }
    }

    /// Hands on what is complete, in order for each rank: one that waits holds back its own only.
    void finish_receives() {
        std::vector<int> waiting;
        for (auto transfer = receives_.begin(); transfer != receives_.end();) {
            int done = 0;
            int code = MPI_SUCCESS;
            if (!transfer->finished) {
                code = MPI_Test(&transfer->request, &done, MPI_STATUS_IGNORE);
                transfer->finished = done != 0;
            }
            if (code != MPI_SUCCESS) {
                transfer = receives_.erase(transfer);
                continue;
            }
            const bool held =
                std::find(waiting.begin(), waiting.end(), transfer->peer) != waiting.end();
            if (transfer->finished && !held) {
                arrived_.push_back({transfer->peer, std::move(transfer->text)});
                transfer = receives_.erase(transfer);
                continue;
            }
            if (!held) waiting.push_back(transfer->peer);
            ++transfer;
        }
    }

    int rank_ = 0;
    int size_ = 1;
    std::list<Transfer> sends_, receives_, forgotten_;
    std::deque<Received> arrived_;
};

}  // namespace

std::unique_ptr<Link> make_mpi_link() { return std::make_unique<MpiLink>(); }

}  // namespace gallop
