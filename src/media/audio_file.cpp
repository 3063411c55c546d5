#include "media/audio_file.hpp"

#include <algorithm>
#include <string>
#include <vector>

extern "C" {
#include <libavutil/channel_layout.h>
}

#include "core/clip.hpp"
#include "media/ffmpeg.hpp"

namespace gallop {
namespace {

constexpr Index max_seconds = 3600;

/// Brings frames of any rate, layout and format to mono s16 at 51,200 Hz. All settings are
/// libswresample's defaults, as in the ffmpeg program, so that the samples are the same.
class Resampler {
public:
    explicit Resampler(std::string name) : name_(std::move(name)) {}
    Resampler(const Resampler&) = delete;
    Resampler& operator=(const Resampler&) = delete;
    ~Resampler() { av_channel_layout_uninit(&layout_); }

    void add(AVFrame& frame) {
        AVChannelLayout& layout = frame.ch_layout;
        if (layout.order ==
            AV_CHANNEL_ORDER_UNSPEC) {  // raw PCM names no speakers: take the usual ones
            const int channels = layout.nb_channels;
            av_channel_layout_uninit(&layout);
            av_channel_layout_default(&layout, channels);
        }
        if (!resampler_ || frame.sample_rate != rate_ || frame.format != format_ ||
            av_channel_layout_compare(&layout, &layout_) != 0)
            restart(frame);
        convert(const_cast<const std::uint8_t**>(frame.extended_data), frame.nb_samples);
    }
    void finish() {
        if (resampler_) convert(nullptr, 0);
    }
    const std::vector<std::int16_t>& samples() const { return samples_; }

private:
    void restart(const AVFrame& frame) {
        finish();
        rate_ = frame.sample_rate;
        format_ = frame.format;
        check_ffmpeg(av_channel_layout_copy(&layout_, &frame.ch_layout), name_, "no memory");
        AVChannelLayout mono = AV_CHANNEL_LAYOUT_MONO;
        check_ffmpeg_input(
            swr_alloc_set_opts2(resampler_.out(), &mono, AV_SAMPLE_FMT_S16, driving_sample_rate,
                                &layout_, static_cast<AVSampleFormat>(format_), rate_, 0, nullptr),
            name_, "cannot resample its sound");
        check_ffmpeg_input(swr_init(resampler_.get()), name_, "cannot resample its sound");
    }
    void convert(const std::uint8_t** input, int count) {
        const int room = swr_get_out_samples(resampler_.get(), count);
        check_ffmpeg(room, name_, "cannot resample");
        const std::size_t before = samples_.size();
        samples_.resize(before + static_cast<std::size_t>(room));
        auto* out = reinterpret_cast<std::uint8_t*>(samples_.data() + before);
        const int made = swr_convert(resampler_.get(), &out, room, input, count);
        check_ffmpeg(made, name_, "cannot resample");
        samples_.resize(before + static_cast<std::size_t>(made));
    }

    std::string name_;
    ResamplerHandle resampler_;
    int rate_ = 0;
    int format_ = AV_SAMPLE_FMT_NONE;
    AVChannelLayout layout_{};
    std::vector<std::int16_t> samples_;
};

}  // namespace

Tensor load_audio(const std::filesystem::path& path, std::optional<Index> most) {
    CHECK(!most || *most > 0, "{} samples of sound (must be above 0)", *most);
    MediaInput input(path);
    input.probe_streams();
    const AVStream* stream = input.stream(AVMEDIA_TYPE_AUDIO);
    if (stream == nullptr) throw_input_error("{}: there is no sound in it", path.string());
    const CodecHandle decoder = open_decoder(input, *stream, {});

    const auto wanted = static_cast<std::size_t>(most.value_or(max_seconds * driving_sample_rate));
    Resampler resampler(path.string());
    const DecodedSink add = [&](AVFrame& frame) {
        resampler.add(frame);
        return resampler.samples().size() <= wanted;
    };
    const PacketHandle packet = make_packet();
    const FrameHandle frame = make_frame();
    int last_error = 0;
    for (;;) {
        const bool more = input.read(packet.get());
        if (more && packet.get()->stream_index != stream->index) continue;
        const int code =
            decode_packet(decoder.get(), more ? packet.get() : nullptr, frame.get(), add);
        if (code == AVERROR_EXIT) break;
        // As the ffmpeg program does, a damaged packet (junk at the end of an MP3, say) is passed
        // over.
        if (code < 0) last_error = code;
        if (!more) break;
    }
    resampler.finish();

    const auto& samples = resampler.samples();
    if (samples.empty())
        throw_input_error("{}: no sound could be decoded: {}", path.string(),
                          last_error < 0 ? ffmpeg_reason(last_error) : "it is empty");
    if (!most && samples.size() > wanted)
        throw_input_error("{}: more than {} s of sound (at most so much is taken whole)",
                          path.string(), max_seconds);
    Tensor audio({static_cast<Index>(std::min(samples.size(), wanted))});
    std::transform(samples.begin(), samples.begin() + audio.numel(), audio.data<float>(),
                   [](std::int16_t sample) { return static_cast<float>(sample) / 32768.0F; });
    return audio;
}

}  // namespace gallop
