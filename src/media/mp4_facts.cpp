#include "media/mp4_facts.hpp"

#include <cmath>

extern "C" {
#include <libavutil/pixdesc.h>
}

#include "core/check.hpp"
#include "core/clip.hpp"
#include "core/file_errors.hpp"
#include "media/ffmpeg.hpp"

namespace gallop {
namespace {

std::string text_or_unknown(const char* text) { return text == nullptr ? "unknown" : text; }

double seconds_of(const AVStream& stream) {
    return stream.duration == AV_NOPTS_VALUE
               ? 0.0
               : static_cast<double>(stream.duration) * av_q2d(stream.time_base);
}

void collect_tags(const AVDictionary* from, std::map<std::string, std::string>& tags) {
    const AVDictionaryEntry* entry = nullptr;
    while ((entry = av_dict_get(from, "", entry, AV_DICT_IGNORE_SUFFIX)) != nullptr)
        tags.emplace(entry->key, entry->value);
}

}  // namespace

Mp4Facts read_mp4(const std::filesystem::path& path) {
    MediaInput input(path);
    input.probe_streams();
    const std::string name = path.string();
    const AVStream* video = input.stream(AVMEDIA_TYPE_VIDEO);
    const AVStream* audio = input.stream(AVMEDIA_TYPE_AUDIO);
    if (video == nullptr) throw_input_error("{}: there are no pictures in it", name);

    Mp4Facts facts;
    facts.bytes = input.file().size();
    facts.video_codec = avcodec_get_name(video->codecpar->codec_id);
    facts.pix_fmt =
        text_or_unknown(av_get_pix_fmt_name(static_cast<AVPixelFormat>(video->codecpar->format)));
    facts.color_matrix = text_or_unknown(av_color_space_name(video->codecpar->color_space));
    facts.color_primaries =
        text_or_unknown(av_color_primaries_name(video->codecpar->color_primaries));
    facts.color_transfer = text_or_unknown(av_color_transfer_name(video->codecpar->color_trc));
    facts.color_range = text_or_unknown(av_color_range_name(video->codecpar->color_range));
    facts.width = video->codecpar->width;
    facts.height = video->codecpar->height;
    facts.frames_per_second = av_q2d(video->avg_frame_rate);
    facts.video_seconds = seconds_of(*video);
    collect_tags(input.format()->metadata, facts.tags);

    const CodecHandle video_decoder = open_decoder(input, *video, {.threads = 2, .strict = true});
    CodecHandle audio_decoder;
    if (audio != nullptr) {
        facts.audio_codec = avcodec_get_name(audio->codecpar->codec_id);
        facts.sample_rate = audio->codecpar->sample_rate;
        facts.channels = audio->codecpar->ch_layout.nb_channels;
        facts.audio_seconds = seconds_of(*audio);
        audio_decoder = open_decoder(input, *audio, {.strict = true});
    }

    bool damaged = false;
    const auto is_damaged = [](const AVFrame& frame) {
        return (frame.flags & AV_FRAME_FLAG_CORRUPT) != 0 || frame.decode_error_flags != 0;
    };
    const DecodedSink count_picture = [&](AVFrame& frame) {
        ++facts.frames;
        return !(damaged = is_damaged(frame));
    };
    const DecodedSink count_samples = [&](AVFrame& frame) {
        facts.samples += frame.nb_samples;
        return !(damaged = is_damaged(frame));
    };
    const PacketHandle packet = make_packet();
    const FrameHandle frame = make_frame();
    for (bool more = true; more;) {
        more = input.read(packet.get());
        const int index = packet.get()->stream_index;
        if (more && (packet.get()->flags & AV_PKT_FLAG_CORRUPT) != 0) damaged = true;
        int code = 0;
        if (!more || index == video->index)
            code = decode_packet(video_decoder.get(), more ? packet.get() : nullptr, frame.get(),
                                 count_picture);
        if (code >= 0 && audio != nullptr && (!more || index == audio->index))
            code = decode_packet(audio_decoder.get(), more ? packet.get() : nullptr, frame.get(),
                                 count_samples);
        if (code < 0 || damaged)
            throw_input_error("{}: damaged after {} pictures and {} samples: {}", name,
                              facts.frames, facts.samples,
                              ffmpeg_reason(damaged ? AVERROR_INVALIDDATA : code));
    }
    return facts;
}

Mp4Facts verify_mp4(const std::filesystem::path& path, std::int64_t frames, int width, int height) {
    Mp4Facts facts;
    try {
        facts = read_mp4(path);
    } catch (const InputError& wrong) {  // of our own making here, so worth another try
        throw BadOutputError(wrong.what());
    }
    const std::string name = path.string();
    const auto require = [&](bool right, std::string_view what, auto found, auto wanted) {
        if (!right)
            throw BadOutputError(
                fmt::format("{}: {} is {} (must be {})", name, what, found, wanted));
    };
    const double seconds = static_cast<double>(frames) / frames_per_second;
    constexpr double one_frame = 1.0 / frames_per_second;
    require(facts.frames == frames, "number of pictures", facts.frames, frames);
    require(facts.width == width, "width", facts.width, width);
    require(facts.height == height, "height", facts.height, height);
    require(!facts.audio_codec.empty(), "number of sound tracks", 0, 1);
    require(facts.sample_rate == sample_rate, "sample rate", facts.sample_rate, sample_rate);
    require(std::abs(facts.video_seconds - seconds) <= one_frame,
            "length of the picture in seconds", facts.video_seconds, seconds);
    require(std::abs(facts.audio_seconds - seconds) <= one_frame, "length of the sound in seconds",
            facts.audio_seconds, seconds);
    require(facts.samples >= frames * samples_per_frame - samples_per_frame, "samples decoded",
            facts.samples, frames * samples_per_frame);
    return facts;
}

}  // namespace gallop
