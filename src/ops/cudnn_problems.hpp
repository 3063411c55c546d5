#pragma once

#include <string_view>

namespace gallop {

/// Whether cuDNN's account of a failure is of memory that ran out, on the GPU or the host: the same call may
/// succeed later. Where several engines were tried, their statuses are in that text and nowhere else.
/// Source: the names of cudnnStatus_t in cudnn_graph.h, and of CUDA's errors.
bool is_about_memory(std::string_view problem);
/// What to look at where a plan failed for its surroundings; "" where cuDNN has nothing for the shape.
std::string_view advice_on(std::string_view problem);

}  // namespace gallop
