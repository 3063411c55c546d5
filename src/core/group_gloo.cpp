#include <utility>

#include <gloo/allreduce.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>

#include "core/check.hpp"
#include "core/group.hpp"

namespace gallop {
namespace {

class GlooGroup : public Group {
public:
    explicit GlooGroup(const GroupSeat& seat)
        : context_(std::make_shared<gloo::rendezvous::Context>(seat.rank, seat.size)),
          usual_patience_(seat.patience),
          patience_(seat.patience) {
        gloo::transport::tcp::attr here;
        here.iface = "lo";
        auto device = gloo::transport::tcp::CreateDevice(here);
        gloo::rendezvous::FileStore store(seat.rendezvous.string());
        context_->setTimeout(seat.patience);
        context_->connectFullMesh(store, device);
    }

    int rank() const override { return context_->rank; }
    int size() const override { return context_->size; }

    void sum(TensorView x) override {
        if (failed_) throw GroupError("the group has failed before");
        try {
            gloo::AllreduceOptions options(context_);
            options.setTimeout(std::exchange(patience_, usual_patience_));
            options.setAlgorithm(gloo::AllreduceOptions::Algorithm::RING);
            options.setOutput(x.data<float>(), static_cast<std::size_t>(x.numel()));
            options.setReduceFunction([](void* to, const void* a, const void* b, std::size_t n) {
                gloo::sum<float>(to, a, b, n);
            });
            gloo::allreduce(options);
        } catch (const gloo::Exception& lost) {
            failed_ = true;
            throw GroupError(
                fmt::format("a member of the group is gone or silent: {}", lost.what()));
        }
    }

    void allow_late(std::chrono::milliseconds patience) override { patience_ = patience; }

private:
    std::shared_ptr<gloo::rendezvous::Context> context_;
    std::chrono::milliseconds usual_patience_;
    std::chrono::milliseconds patience_;  ///< of the next sum
    bool failed_ = false;
};

}  // namespace

std::unique_ptr<Group> make_gloo_group(const GroupSeat& seat) {
    CHECK(0 <= seat.rank && seat.rank < seat.size, "member {} of a group of {}", seat.rank,
          seat.size);
    try {
        return std::make_unique<GlooGroup>(seat);
    } catch (const std::exception& failed) {
        throw GroupError(fmt::format("member {} of {} cannot join the group at {}: {}", seat.rank,
                                     seat.size, seat.rendezvous.string(), failed.what()));
    }
}

}  // namespace gallop
