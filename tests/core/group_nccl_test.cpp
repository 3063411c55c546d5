#include "core/group_nccl.hpp"

#include <array>
#include <atomic>
#include <thread>

#include <gmock/gmock.h>
#include <nccl.h>

#include "support/temporary_folder.hpp"

// What NCCL's group makes of peers that are gone or silent. This program's own NCCL and CUDA stand in for
// the libraries: they do what a test says.

namespace {

std::atomic<ncclResult_t> answer{ncclSuccess};  // of everything asked behind our back
std::atomic<bool> sums_end{true};               // whether a sum is ever done
std::atomic<bool> leaves_end{true};             // whether taking leave of the others is ever done
std::atomic<const char*> last_error{""};
std::atomic<int> least_channels{0}, most_channels{0};
std::atomic<int> sums{0}, aborts{0}, finalised{0}, destroyed{0};

}  // namespace

extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    for (std::size_t i = 0; i < sizeof id->internal; ++i) id->internal[i] = static_cast<char>(i);
    return ncclSuccess;
}
ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int /*size*/, ncclUniqueId /*id*/,
                                    int /*rank*/, ncclConfig_t* config) {
    least_channels = config->minCTAs;
    most_channels = config->maxCTAs;
    *comm = reinterpret_cast<ncclComm_t>(&answer);
    return ncclInProgress;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t /*comm*/, ncclResult_t* state) {
    *state = finalised > 0 && !leaves_end ? ncclInProgress : answer.load();
    return ncclSuccess;
}
ncclResult_t ncclAllReduce(const void* /*from*/, void* /*to*/, size_t /*count*/,
                           ncclDataType_t /*type*/, ncclRedOp_t /*op*/, ncclComm_t /*comm*/,
                           cudaStream_t /*stream*/) {
    ++sums;
    return ncclInProgress;
}
ncclResult_t ncclCommFinalize(ncclComm_t /*comm*/) {
    ++finalised;
    return ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t /*comm*/) {
    ++destroyed;
    return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t /*comm*/) {
    ++aborts;
    return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t status) {
    return status == ncclRemoteError ? "remote process exited or there was a network error"
                                     : "some error";
}
const char* ncclGetLastError(ncclComm_t /*comm*/) { return last_error; }

cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int /*device*/) { return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned /*flags*/) {
    *event = reinterpret_cast<cudaEvent_t>(&sums);
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t /*event*/, cudaStream_t /*stream*/) { return cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t /*event*/) {
    return sums_end ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaStreamQuery(cudaStream_t /*stream*/) {
    return sums_end ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaMalloc(void** data, size_t /*bytes*/) {
    *data = &sums;
    return cudaSuccess;
}
cudaError_t cudaFree(void* /*data*/) { return cudaSuccess; }
cudaError_t cudaMemsetAsync(void* /*data*/, int /*value*/, size_t /*bytes*/,
                            cudaStream_t /*stream*/) {
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t /*event*/) { return cudaSuccess; }

}  // extern "C"

namespace gallop {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class NcclPeers : public ::testing::Test {
protected:
    void SetUp() override {
        answer = ncclSuccess;
        sums_end = leaves_end = true;
        last_error = "connection closed by 10.0.0.7";
        sums = aborts = finalised = destroyed = 0;
    }

    std::unique_ptr<Group> join(std::chrono::milliseconds patience, int rank = 0) {
        return make_nccl_group({rank, 2, folder_.path(), patience}, nullptr);
    }
    /// An array that only its address is asked of.
    TensorView array() {
        return {reinterpret_cast<std::byte*>(&values_), Shape({4}), DType::f32, Device::cuda};
    }
    /// What `check` says within two seconds; "" when it goes on saying nothing.
    static std::string failure_of(Group& group) {
        for (int i = 0; i < 200; ++i) {
            try {
                group.check();
            } catch (const GroupError& failed) {
                return failed.what();
            }
            std::this_thread::sleep_for(10ms);
        }
        return "";
    }

    test::TemporaryFolder folder_;
    std::array<float, 4> values_{};
};

TEST_F(NcclPeers, SumWhileAllAreThere) {
    {
        const auto group = join(1s);
        group->sum(array());
        group->sum(array());
        EXPECT_NO_THROW(group->check());
        EXPECT_EQ(sums, 3) << "the first one connects them";
        EXPECT_EQ(destroyed, 0);
    }
    EXPECT_EQ(finalised, 1);
    EXPECT_EQ(destroyed, 1) << "a communicator is given back once";
    EXPECT_EQ(aborts, 0) << "an abort could cut off the others' last sum";
}

TEST_F(NcclPeers, AreNotWaitedForWithoutEndByOneThatGoes) {
    for (std::atomic<bool>* never : {&sums_end, &leaves_end}) {
        SetUp();
        {
            const auto group = join(200ms);
            group->sum(array());
            *never = false;
        }
        EXPECT_EQ(finalised, never == &leaves_end ? 1 : 0) << "only what has ended is finalised";
        EXPECT_EQ(destroyed, 0);
        EXPECT_EQ(aborts, 1);
    }
}

TEST_F(NcclPeers, MayComeLateToOneSum) {
    const auto group = join(100ms);
    sums_end = false;
    group->allow_late(10s);
    group->sum(array());
    std::this_thread::sleep_for(400ms);
    EXPECT_NO_THROW(group->check()) << "another member still loads";
    sums_end = true;
    std::this_thread::sleep_for(100ms);
    sums_end = false;
    group->sum(array());
    EXPECT_THAT(failure_of(*group), HasSubstr("was not done in 100 ms"));
}

TEST_F(NcclPeers, ThatDoNotComeAreWaitedForSoLong) {
    EXPECT_THROW(join(100ms, 1), GroupError) << "the first member left no id";
    answer = ncclInProgress;
    try {
        join(100ms);
        FAIL();
    } catch (const GroupError& late) {
        EXPECT_THAT(late.what(), HasSubstr("no answer in 100 ms"));
    }
    EXPECT_EQ(aborts, 1);
}

TEST_F(NcclPeers, ThatAreGoneEndTheGroup) {
    {
        const auto group = join(10s);
        sums_end = false;  // the sum waits for one that is gone
        group->sum(array());
        answer = ncclRemoteError;
        EXPECT_THAT(failure_of(*group),
                    AllOf(HasSubstr("a member of the group is gone"), HasSubstr("10.0.0.7")));
        EXPECT_EQ(aborts, 1) << "so that the stream goes on";
        EXPECT_THROW(group->sum(array()), GroupError);
        EXPECT_EQ(sums, 2) << "nothing more is asked of a dead communicator";
    }
    EXPECT_EQ(aborts, 1);
}

TEST_F(NcclPeers, ThatAreSilentEndTheGroupAfterItsPatience) {
    const auto group = join(100ms);
    sums_end = false;
    group->sum(array());
    EXPECT_THAT(failure_of(*group), HasSubstr("was not done in 100 ms"));
    EXPECT_THROW(group->sum(array()), GroupError);
    EXPECT_EQ(aborts, 1);
    EXPECT_EQ(finalised, 0);
}

TEST_F(NcclPeers, AreConnectedBeforeAnyoneTakesMemory) {
    const auto group = join(1s);
    EXPECT_EQ(sums, 1);
}

TEST_F(NcclPeers, AddInOneOrderOnEveryMachine) {
    const auto group = join(1s);
    EXPECT_GT(least_channels, 0);
    EXPECT_EQ(least_channels, most_channels);
}

TEST_F(NcclPeers, WithoutMemorySayWhatWasMissing) {
    last_error = "Failed to CUDA calloc 10485760 bytes: Cuda failure 2 'out of memory'";
    answer = ncclUnhandledCudaError;
    EXPECT_THROW(join(1s), OutOfMemoryError);
    answer = ncclSuccess;
    const auto group = join(1s);
    answer = ncclUnhandledCudaError;
    EXPECT_THROW(group->sum(array()), OutOfMemoryError);
}

TEST_F(NcclPeers, MayTakeTheirTimeBetweenSums) {
    const auto group = join(150ms);
    group->sum(array());
    std::this_thread::sleep_for(300ms);
    EXPECT_NO_THROW(group->check());
    EXPECT_NO_THROW(group->sum(array()));
}

}  // namespace
}  // namespace gallop
