#include <algorithm>

#include <fmt/format.h>

#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "core/check.hpp"
#include "farm/render_item.hpp"
#include "media/h5.hpp"

namespace gallop::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* decode_help = R"(gallop decode FILE.h5 [--out FILE.mp4] [options]

Makes an MP4 of stored latents again, with other settings if wanted.

  --out FILE.mp4          where to write (default: beside the latents)
  --model DIR             the model folder (default: the one that the file names)
  --arch FILE             architecture file (default: the one that the file names, if any)
  --decoder turbo|wan     (default: the one that the file names)
  --crf N                 0 (lossless) … 51 (default: 18)
  --preset NAME           of the H.264 encoder, ultrafast … veryslow (default: fast)
  --pix-fmt NAME          yuv420p, yuv422p, yuv444p, also with 10le (default: yuv420p)
  --audio-bitrate N       bits a second (default: 192000)
  --tiled                 decode the picture in tiles, for the least memory; a colour value in a
                          thousand may differ by one level of 256
  --backend cpu|cuda      (default: cpu)
  --threads N             CPU threads (default: all)
  --precision fp32|bf16   (default: the one that the file names)

Prints the MP4's path.
)";

template <class T>
T attribute(const LatentsFile& file, const char* name, T fallback) {
    const auto found = file.attributes.find(name);
    if (found == file.attributes.end()) return fallback;
    const T* value = std::get_if<T>(&found->second);
    return value == nullptr ? fallback : *value;
}

std::string or_attribute(const Values& values, const char* option, const LatentsFile& file,
                         const char* name, const char* fallback = "") {
    return values.contains(option) ? text_of(values, option)
                                   : attribute(file, name, std::string(fallback));
}

int decode(const Arguments& arguments) {
    po::options_description options;
    options.add_options()("out", po::value<std::string>())("model", po::value<std::string>())(
        "arch", po::value<std::string>())("decoder", po::value<std::string>())(
        "crf", po::value<int>()->default_value(18))(
        "preset", po::value<std::string>()->default_value("fast"))(
        "pix-fmt", po::value<std::string>()->default_value("yuv420p"))(
        "audio-bitrate", po::value<int>()->default_value(192000))(
        "precision", po::value<std::string>())("tiled", po::bool_switch());
    add_backend_options(options);
    const Values values = parse("decode", arguments, options, {"FILE"});
    const fs::path path = text_of(values, "FILE");
    const LatentsFile file = read_latents(path);
    const Tensor& video = file.video_final.defined() ? file.video_final : file.video_base;
    if (!video.defined() || !file.audio.defined())
        throw_input_error("{}: holds no {} (both are needed to make a clip)", path.string(),
                          video.defined() ? "audio" : "picture latents");

    const std::string model = or_attribute(values, "model", file, "model");
    if (model.empty())
        throw_input_error("{}: names no model folder; give it with --model", path.string());
    const std::string decoder = or_attribute(values, "decoder", file, "decoder", "turbo");
    if (decoder != "turbo" && decoder != "wan")
        throw_input_error("decoder is \"{}\" (turbo, wan)", decoder);
    const auto latent_frames = static_cast<int>(video.size(1));
    const auto frames = attribute(file, "frames", std::int64_t{4} * (latent_frames - 1) + 1);
    if (frames < 1 || frames > 4 * (latent_frames - 1) + 1)
        throw_input_error("{}: frames is {}, but its {} latent frames hold 1 to {}", path.string(),
                          frames, latent_frames, 4 * (latent_frames - 1) + 1);

    OutputRequest how;
    how.crf = values["crf"].as<int>();
    how.preset = text_of(values, "preset");
    how.pix_fmt = text_of(values, "pix-fmt");
    how.audio_bitrate = values["audio-bitrate"].as<int>();
    const fs::path out = values.contains("out") ? fs::path(text_of(values, "out"))
                                                : fs::path(path).replace_extension(".mp4");
    // What fp8 is about follows its name; the decoders have no part in it.
    std::string named = or_attribute(values, "precision", file, "precision", "bf16");
    named.erase(std::min(named.find(' '), named.size()));
    const Precision precision = precision_of(named);
    const std::unique_ptr<Backend> backend = make_backend(values);
    Renderer renderer({model, or_attribute(values, "arch", file, "arch"), precision}, *backend);
    write_clip(stages_of(renderer), video, file.audio,
               {decoder == "wan" ? VideoDecoder::wan : VideoDecoder::turbo,
                static_cast<int>(frames), values["tiled"].as<bool>()},
               {static_cast<int>(video.size(3)) * 16, static_cast<int>(video.size(2)) * 16}, how,
               attribute(file, "id", std::string()), out, {});
    fmt::print("{}\n", out.string());
    return done;
}

}  // namespace

const Command decode_command = {"decode", decode_help, decode};

}  // namespace gallop::cli
