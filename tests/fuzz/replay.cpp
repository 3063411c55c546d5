// Stands in for libFuzzer where there is none: runs a fuzz target over its seeds and a number of
// mutations of them that are the same every time. Usage: replay_NAME CORPUS COUNT

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;

void run(const Bytes& bytes) { LLVMFuzzerTestOneInput(bytes.data(), bytes.size()); }

class Mutator {
public:
    explicit Mutator(std::vector<Bytes> seeds) : seeds_(std::move(seeds)) {}

    Bytes next() {
        Bytes bytes = any_seed();
        for (std::size_t change = 1 + below(4); change > 0; --change) mutate(bytes);
        return bytes;
    }

private:
    // Not std::uniform_int_distribution, whose values depend on the library.
    std::size_t below(std::size_t bound) { return bound == 0 ? 0 : random_() % bound; }
    const Bytes& any_seed() { return seeds_[below(seeds_.size())]; }
    auto at(Bytes& bytes) {
        return bytes.begin() + static_cast<std::ptrdiff_t>(below(bytes.size()));
    }

    void mutate(Bytes& bytes) {
        static constexpr std::uint8_t telling[]{0x00, 0x01, 0x7f, 0x80, 0xff, '"',
                                                '{',  '[',  '9',  '-',  '('};
        if (bytes.empty()) return bytes.push_back(static_cast<std::uint8_t>(below(256)));
        switch (below(7)) {
            case 0: *at(bytes) ^= static_cast<std::uint8_t>(1U << below(8)); break;
            case 1: *at(bytes) = telling[below(std::size(telling))]; break;
            case 2: bytes.resize(below(bytes.size())); break;
            case 3: bytes.insert(at(bytes), telling[below(std::size(telling))]); break;
            case 4: {  // a piece again, elsewhere
                const std::size_t from = below(bytes.size());
                const std::size_t size = std::min(bytes.size() - from, below(64));
                const auto piece = Bytes(bytes.begin() + static_cast<std::ptrdiff_t>(from),
                                         bytes.begin() + static_cast<std::ptrdiff_t>(from + size));
                bytes.insert(at(bytes), piece.begin(), piece.end());
                break;
            }
            case 5: {  // a piece lost
                const auto from = at(bytes);
                const auto left = static_cast<std::size_t>(bytes.end() - from);
                bytes.erase(from, from + static_cast<std::ptrdiff_t>(std::min(left, below(64))));
                break;
            }
            default: {  // the head of one seed, the tail of another
                const Bytes& other = any_seed();
                bytes.resize(below(bytes.size()));
                bytes.insert(bytes.end(),
                             other.begin() + static_cast<std::ptrdiff_t>(below(other.size())),
                             other.end());
            }
        }
    }

    std::vector<Bytes> seeds_;
    std::mt19937 random_{1};
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: %s CORPUS COUNT\n", argv[0]);
        return 2;
    }
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(argv[1]))
        files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    std::vector<Bytes> seeds;
    for (const auto& file : files) {
        std::ifstream in(file, std::ios::binary);
        seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
        run(seeds.back());
    }
    if (seeds.empty()) {
        std::fprintf(stderr, "%s: no seeds\n", argv[1]);
        return 1;
    }
    run({});
    const long count = std::strtol(argv[2], nullptr, 10);
    Mutator mutator(std::move(seeds));
    for (long i = 0; i < count; ++i) run(mutator.next());
    std::printf("%zu seeds and %ld mutations\n", files.size(), count);
}
