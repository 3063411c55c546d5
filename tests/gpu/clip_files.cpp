#include "gpu/clip_files.hpp"

#include <filesystem>
#include <memory>

#include <unistd.h>

#include "media/clip_encoder.hpp"

namespace gallop {

ClipFiles clip_files() {
    return [](Size size, std::future<Tensor> sound) {
        const auto path = std::filesystem::temp_directory_path() /
                          ("gallop-bench-" + std::to_string(::getpid()) + ".mp4");
        Mp4Options options;
        options.width = size.width;
        options.height = size.height;
        options.threads = encoder_threads(options.width, options.height);
        const auto encoder = std::make_shared<ClipEncoder>(path, options, std::move(sound));
        return ClipFile{[encoder](ConstTensorView pictures) { encoder->add(pictures); },
                        [encoder, path] {
                            encoder->finish();
                            std::filesystem::remove(path);
                        }};
    };
}

}  // namespace gallop
