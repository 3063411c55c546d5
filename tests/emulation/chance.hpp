#pragma once

#include <random>

namespace gallop::emulation {

/// What decides every order that a GPU leaves open. Seeded anew in every process, or from
/// GALLOP_EMULATION_SEED; the seed is printed once.
std::minstd_rand& chance();

}  // namespace gallop::emulation
