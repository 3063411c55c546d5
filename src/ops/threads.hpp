#pragma once

namespace gallop {

/// Threads that the CPU backend works with.
int cpu_threads();

}  // namespace gallop
