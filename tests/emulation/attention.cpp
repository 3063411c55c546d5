// What a launch asks for as dynamic shared memory: the most that a block of Hopper's may have.
namespace gallop::kernels {
namespace {
thread_local float4 shared[(227 << 10) / sizeof(float4)];
}
}  // namespace gallop::kernels

#include "kernels/attention.cu"
