#include "farm/cost.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <queue>

#include <fmt/format.h>

namespace gallop {
namespace {

/// What a fifth renderer of an item brings is less than what the second did: the share of ideal
/// speed-up that a group reaches. Source: the tables of tensor parallelism that were measured on
/// models of this kind; 8 GPUs reach 60 to 80 %.
double group_efficiency(int gpus) { return 1.0 / (1.0 + 0.07 * (gpus - 1)); }

/// What Backend::matrix_unit says of bf16 on a calibration's device.
Index matrix_unit(const std::string& device) { return device == "cpu" ? 1 : 128; }

/// Bits a pixel of H.264 at CRF 18, preset fast, on moving pictures; halved every six steps.
double picture_bytes(const OutputRequest& out, const Item& item) {
    constexpr double bits_at_18 = 0.12;
    const double pixels = static_cast<double>(item.size.width) * item.size.height * item.frames;
    const double planes = out.pix_fmt == "yuv444p" ? 1.4 : out.pix_fmt == "yuv422p" ? 1.15 : 1.0;
    return pixels * bits_at_18 * std::exp2((18 - out.crf) / 6.0) * planes / 8;
}

}  // namespace

CostModel::CostModel(const RunRequest& request, Calibration calibration)
    : request_(request),
      calibration_(std::move(calibration)),
      work_(request.model.choice(), matrix_unit(calibration_.device)) {}

ItemCost CostModel::of(const Item& item) const {
    ItemCost cost;
    ClipWork work;
    const int asked = request_.resources.gpus_per_item;
    for (cost.gpus = asked == 0 ? 1 : asked;; cost.gpus *= 2) {
        work = work_.of(item, cost.gpus);
        cost.memory_bytes = static_cast<double>(work.memory_bytes());
        const bool fits = calibration_.memory_bytes == 0 ||
                          cost.memory_bytes <= usable_memory * calibration_.memory_bytes;
        if (asked != 0 || fits || cost.gpus == 8 || !work_.can_share(item, 2 * cost.gpus)) break;
    }
    cost.stages = calibration_.seconds(work);
    for (const Stage split : {Stage::base, Stage::sr})
        cost.stages[static_cast<std::size_t>(split)] /= cost.gpus * group_efficiency(cost.gpus);
    cost.seconds = std::accumulate(cost.stages.begin(), cost.stages.end(), 0.0);

    const OutputRequest& out = request_.outputs;
    cost.clip_bytes = picture_bytes(out, item) + out.audio_bitrate / 8.0 * item.frames / 25 + 4096;
    const double frames = (item.audio_latents - 1) / 4 + 1;
    const auto latent = [&](Size size) {
        return 48 * frames * (size.height / 16.0) * (size.width / 16.0);
    };
    const double element = out.latents == DType::f32 ? 4 : 2;
    double elements = 0;
    if (out.keep_base || (out.keep_final && item.sr.empty())) elements += latent(item.base_size);
    if (out.keep_final && !item.sr.empty()) elements += latent(item.size);
    if (elements > 0) cost.latents_bytes = element * (elements + 64.0 * item.audio_latents) + 8192;
    return cost;
}

double makespan(std::vector<float>& seconds, std::size_t workers) {
    std::sort(seconds.begin(), seconds.end(), std::greater<>());
    workers = std::max<std::size_t>(workers, 1);
    std::priority_queue<double, std::vector<double>, std::greater<>> free;
    for (std::size_t i = 0; i < std::min(workers, seconds.size()); ++i) free.push(0);
    double last = 0;
    for (const float one : seconds) {
        const double end = free.top() + one;
        free.pop();
        free.push(end);
        last = std::max(last, end);
    }
    return last;
}

std::string suggested_time(double seconds, double reserve_seconds) {
    constexpr double starting = 300;
    const double asked = std::ceil((1.2 * seconds + starting + reserve_seconds) / 900) * 900;
    const auto total = static_cast<std::int64_t>(std::min(asked, 365.0 * 86400));
    const auto days = total / 86400;
    const std::string clock =
        fmt::format("{:02}:{:02}:00", total % 86400 / 3600, total % 3600 / 60);
    return days > 0 ? fmt::format("{}-{}", days, clock) : clock;
}

}  // namespace gallop
