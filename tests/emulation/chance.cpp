#include "emulation/chance.hpp"

#include <cstdio>
#include <cstdlib>

namespace gallop::emulation {
namespace {

std::minstd_rand seeded() {
    const char* given = std::getenv("GALLOP_EMULATION_SEED");
    const unsigned long seed =
        given != nullptr ? std::strtoul(given, nullptr, 10) : std::random_device()();
    std::fprintf(stderr, "emulated GPU: GALLOP_EMULATION_SEED=%lu\n", seed);
    return std::minstd_rand(static_cast<std::minstd_rand::result_type>(seed));
}

}  // namespace

std::minstd_rand& chance() {
    static std::minstd_rand generator = seeded();
    return generator;
}

}  // namespace gallop::emulation
