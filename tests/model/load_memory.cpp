// Measures what loading costs: writes a sharded checkpoint of a given size, loads it as bf16 on the
// CPU backend, half of every matrix's columns first, then all, and fails when the process at its largest
// was more than 1.15 times the weights.
// Usage: load_memory MIB

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "model/safetensors.hpp"
#include "support/temporary_folder.hpp"

namespace {

using namespace gallop;

constexpr Index width = 2048;
constexpr int shards = 4;

// A field of /proc/self/status, in bytes.
std::uint64_t status(const std::string& field) {
    std::ifstream in("/proc/self/status");
    for (std::string line; std::getline(in, line);)
        if (line.starts_with(field + ":")) return std::stoull(line.substr(field.size() + 1)) * 1024;
    std::fprintf(stderr, "no %s in /proc/self/status\n", field.c_str());
    std::exit(1);
}

// Linears in f32, every fourth in E4M3 with a scale a row, and norms: as the published folders.
std::vector<std::vector<SafetensorsWriter::Row>> tables(std::uint64_t bytes) {
    std::vector<std::vector<SafetensorsWriter::Row>> made(shards);
    std::uint64_t sum = 0;
    for (int layer = 0; sum < bytes; ++layer) {
        auto& shard = made[static_cast<std::size_t>(layer % shards)];
        const std::string name = fmt::format("block.layers.{}.", layer);
        const DType stored = layer % 4 == 3 ? DType::f8_e4m3 : DType::f32;
        shard.push_back({name + "weight", stored, {width, width}});
        shard.push_back({name + "norm", DType::f32, {width}});
        if (stored == DType::f8_e4m3)
            shard.push_back({name + "weight.__fp8_scale", DType::f32, {width, 1}});
        sum += static_cast<std::uint64_t>(width * width) * size_of(stored);
    }
    return made;
}

void write(const std::filesystem::path& folder, std::uint64_t bytes) {
    nlohmann::json map;
    std::vector<std::byte> piece(1U << 20, std::byte{0x38});
    const auto all = tables(bytes);
    for (std::size_t i = 0; i < all.size(); ++i) {
        const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, all.size());
        SafetensorsWriter writer(folder / name, all[i]);
        for (const auto& row : all[i]) {
            map[row.name] = name;
            auto left = static_cast<std::size_t>(row.shape.numel()) * size_of(row.dtype);
            for (; left > 0; left -= std::min(left, piece.size()))
                writer.append(std::span(piece).first(std::min(left, piece.size())));
        }
        writer.commit();
    }
    write_atomically(folder / "model.safetensors.index.json",
                     nlohmann::json{{"weight_map", std::move(map)}}.dump());
}

// All tensors, or of matrices every member's half of the columns.
std::vector<TensorSpec> specs_of(const Checkpoint& checkpoint, bool half) {
    std::vector<TensorSpec> specs;
    for (const StoredTensor& tensor : checkpoint.tensors()) {
        TensorSpec spec{.name = tensor.name, .shape = tensor.shape};
        if (tensor.shape.rank() == 2) {
            spec.dtype = DType::bf16;
            if (half) {
                spec.slice = Slice{tensor.shape, {{0, tensor.shape[0], 0}}, width / 2, width / 2};
                spec.shape = {tensor.shape[0], width / 2};
            }
        }
        specs.push_back(std::move(spec));
    }
    return specs;
}

// Loads, and says whether the process stayed small. `before`: its bytes when it had loaded nothing.
bool stays_small(const Checkpoint& checkpoint, bool half, std::uint64_t before) {
    const auto backend = make_cpu_backend(1);
    const Weights weights = checkpoint.load(specs_of(checkpoint, half), *backend);
    std::uint64_t stored = 0;
    for (const StoredTensor& tensor : checkpoint.tensors()) stored += tensor.bytes;
    const std::uint64_t peak = status("VmHWM") - before;
    const double ratio = static_cast<double>(peak) / static_cast<double>(weights.bytes());
    std::printf("%s: stored %.1f MiB  converted %.1f MiB  peak %.1f MiB  ratio %.3f\n",
                half ? "half" : "all", static_cast<double>(stored) / (1 << 20),
                static_cast<double>(weights.bytes()) / (1 << 20),
                static_cast<double>(peak) / (1 << 20), ratio);
    return ratio <= 1.15;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s MIB\n", argv[0]);
        return 2;
    }
    const test::TemporaryFolder folder;
    write(folder.path(), std::strtoull(argv[1], nullptr, 10) << 20);

    const std::uint64_t before = status("VmRSS");
    const auto checkpoint = Checkpoint::open(folder.path());
    const bool half = stays_small(checkpoint, true, before);
    const bool all = stays_small(checkpoint, false, before);
    return half && all ? 0 : 1;
}
