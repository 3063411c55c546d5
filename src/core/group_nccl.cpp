#include "core/group_nccl.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include <nccl.h>

#include "core/check.hpp"
#include "core/cuda.hpp"
#include "core/files.hpp"

namespace gallop {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

/// Channels of a ring: their number decides in which order values are added, so it must not depend on the
/// machine.
constexpr int channels = 16;

/// NCCL tells of memory only in words.
[[noreturn]] void fail(const std::string& text) {
    if (text.find("out of memory") != std::string::npos) throw OutOfMemoryError(text);
    throw GroupError(text);
}

void check_nccl(ncclResult_t status, const char* what) {
    if (status == ncclSuccess || status == ncclInProgress) return;
    fail(fmt::format("{}: {}: {}", what, ncclGetErrorString(status), ncclGetLastError(nullptr)));
}

/// The communicator's id: made by the first member, read by the others once it is there.
ncclUniqueId exchange_id(const GroupSeat& seat) {
    const std::filesystem::path path = seat.rendezvous / "nccl.id";
    ncclUniqueId id;
    if (seat.rank == 0) {
        check_nccl(ncclGetUniqueId(&id), "making an NCCL id");
        write_atomically(path, std::string_view(id.internal, sizeof id.internal));
        return id;
    }
    const auto deadline = Clock::now() + seat.patience;
    std::error_code ignored;
    while (!std::filesystem::exists(path, ignored)) {
        if (Clock::now() > deadline)
            throw GroupError(fmt::format("{}: the group's first member did not come in {} ms",
                                         path.string(), seat.patience.count()));
        std::this_thread::sleep_for(10ms);
    }
    const std::string text = read_text(path, sizeof id.internal);
    if (text.size() != sizeof id.internal)
        throw GroupError(fmt::format("{}: {} bytes ({} wanted)", path.string(), text.size(),
                                     sizeof id.internal));
    std::memcpy(id.internal, text.data(), text.size());
    return id;
}

class NcclGroup : public Group {
public:
    NcclGroup(const GroupSeat& seat, cudaStream_t stream)
        : seat_(seat), stream_(stream), patience_(seat.patience) {
        check_cuda(cudaGetDevice(&device_), "asking for the current GPU");
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        config.minCTAs = config.maxCTAs = channels;
        check_nccl(ncclCommInitRankConfig(&comm_, seat.size, exchange_id(seat), seat.rank, &config),
                   "joining the NCCL group");
        try {
            settle("joining the NCCL group", seat.patience);
            connect();
        } catch (...) {
            ncclCommAbort(comm_);
            throw;
        }
        watcher_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
    }

    ~NcclGroup() override {
        watcher_.request_stop();
        watcher_.join();
        if (!failure_.empty()) return;  // the watcher has ended it
        if (finalised())
            ncclCommDestroy(comm_);
        else
            ncclCommAbort(comm_);
    }

    int rank() const override { return seat_.rank; }
    int size() const override { return seat_.size; }

    void sum(TensorView x) override {
        CHECK(x.device() == Device::cuda, "an array in host memory summed over GPUs");
        const std::lock_guard lock(mutex_);
        throw_if_failed();
        const auto patience = std::exchange(patience_, seat_.patience);
        check_nccl(ncclAllReduce(x.raw(), x.raw(), static_cast<std::size_t>(x.numel()), ncclFloat32,
                                 ncclSum, comm_, stream_),
                   "summing over the GPUs");
        settle("summing over the GPUs", patience);
        Event done;
        check_cuda(cudaEventCreateWithFlags(done.out(), cudaEventDisableTiming), "making an event");
        check_cuda(cudaEventRecord(done.get(), stream_), "marking the stream");
        pending_.push_back({std::move(done), Clock::now(), patience});
    }

    void allow_late(std::chrono::milliseconds patience) override { patience_ = patience; }

    void check() override {
        const std::lock_guard lock(mutex_);
        throw_if_failed();
    }

private:
    struct Sum {
        Event done;
        Clock::time_point asked;
        std::chrono::milliseconds patience;
    };
    /// A member that goes waits so long at most for its sums and for the others.
    static constexpr std::chrono::milliseconds farewell = 5s;

    /// NCCL connects the members and takes its buffers at the first sum: now, not when weights and activations
    /// have the memory.
    void connect() {
        check_cuda(cudaMalloc(one_.out(), sizeof(float)), "taking memory for a sum");
        check_cuda(cudaMemsetAsync(one_.get(), 0, sizeof(float), stream_), "filling with zeros");
        check_nccl(ncclAllReduce(one_.get(), one_.get(), 1, ncclFloat32, ncclSum, comm_, stream_),
                   "connecting the NCCL group");
        settle("connecting the NCCL group", seat_.patience);
    }

    /// Waits until a call that NCCL goes on with by itself has been taken.
    void settle(const char* what, std::chrono::milliseconds patience) {
        const auto deadline = Clock::now() + patience;
        for (;;) {
            ncclResult_t state = ncclSuccess;
            check_nccl(ncclCommGetAsyncError(comm_, &state), what);
            if (state == ncclSuccess) return;
            check_nccl(state, what);
            if (Clock::now() > deadline)
                throw GroupError(fmt::format("{}: no answer in {} ms", what, patience.count()));
            std::this_thread::sleep_for(50us);
        }
    }

    /// Whether all sums are done and NCCL has taken leave of the other members.
    bool finalised() noexcept {
        static_cast<void>(cudaSetDevice(device_));
        const auto deadline = Clock::now() + std::min(farewell, seat_.patience);
        const auto in_time = [&] {
            std::this_thread::sleep_for(1ms);
            return Clock::now() < deadline;
        };
        cudaError_t work = cudaStreamQuery(stream_);
        while (work == cudaErrorNotReady && in_time()) work = cudaStreamQuery(stream_);
        if (work != cudaSuccess) return false;
        ncclResult_t state = ncclCommFinalize(comm_);
        while (state == ncclInProgress && in_time())
            if (ncclCommGetAsyncError(comm_, &state) != ncclSuccess) return false;
        return state == ncclSuccess;
    }

    void throw_if_failed() const {
        if (!failure_.empty()) fail(failure_);
    }

    void watch(const std::stop_token& stop) {
        static_cast<void>(cudaSetDevice(device_));
        // The oldest sum's time runs from when the one before it was over.
        Clock::time_point before = Clock::now();
        while (!stop.stop_requested()) {
            std::this_thread::sleep_for(10ms);
            const std::lock_guard lock(mutex_);
            while (!pending_.empty() &&
                   cudaEventQuery(pending_.front().done.get()) == cudaSuccess) {
                pending_.pop_front();
                before = Clock::now();
            }
            ncclResult_t state = ncclSuccess;
            if (ncclCommGetAsyncError(comm_, &state) != ncclSuccess ||
                (state != ncclSuccess && state != ncclInProgress))
                failure_ =
                    fmt::format("a member of the group is gone: {}", ncclGetLastError(comm_));
            else if (!pending_.empty() && Clock::now() - std::max(before, pending_.front().asked) >
                                              pending_.front().patience)
                failure_ = fmt::format("a sum over the GPUs was not done in {} ms",
                                       pending_.front().patience.count());
            if (failure_.empty()) continue;
            ncclCommAbort(comm_);
            return;
        }
    }

    GroupSeat seat_;
    cudaStream_t stream_;
    std::chrono::milliseconds patience_;  ///< of the next sum
    int device_ = 0;
    Handle<void*, cudaFree> one_;  ///< what the first sum is of; outlives the communicator
    ncclComm_t comm_ = nullptr;
    std::mutex mutex_;  ///< of all below
    std::deque<Sum> pending_;
    std::string failure_;
    std::jthread watcher_;
};

}  // namespace

std::unique_ptr<Group> make_nccl_group(const GroupSeat& seat, cudaStream_t stream) {
    return std::make_unique<NcclGroup>(seat, stream);
}

}  // namespace gallop
