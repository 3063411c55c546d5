#include "gpu/clip_files.hpp"

#include <filesystem>
#include <memory>

#include <unistd.h>

#include "media/mp4.hpp"

namespace gallop {

ClipFiles clip_files() {
    return [](Size size, Tensor sound) {
        const auto path = std::filesystem::temp_directory_path() /
                          ("gallop-bench-" + std::to_string(::getpid()) + ".mp4");
        Mp4Options options;
        options.width = size.width;
        options.height = size.height;
        const auto writer = std::make_shared<Mp4Writer>(path, options, std::move(sound));
        return ClipFile{[writer](ConstTensorView pictures) { writer->add_frames(pictures); },
                        [writer, path] {
                            writer->finish();
                            std::filesystem::remove(path);
                        }};
    };
}

}  // namespace gallop
