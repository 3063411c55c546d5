#pragma once

#include "pipeline/bench.hpp"

namespace gallop {

/// Clips as MP4 in the folder for temporary files, gone once finished; empty in a build without FFmpeg.
ClipFiles clip_files();

}  // namespace gallop
