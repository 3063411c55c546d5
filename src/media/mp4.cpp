#include "media/mp4.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <string_view>
#include <utility>

extern "C" {
#include <libavutil/imgutils.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
}

#include "core/clip.hpp"
#include "core/files.hpp"
#include "core/yuv.hpp"
#include "media/ffmpeg.hpp"

// Timing. Picture i is shown at i/25 s for 1/25 s: exact in every time base used (1/25, 1/12800,
// the movie's 1/1000). The AAC encoder starts 1024 samples early (priming); its first packet gets
// pts −1024 and the muxer writes an edit list that begins at media time 1024 and lasts frames·40
// ms, so sample 0 of the sound is presented at 0 and both presented durations are exactly frames/25
// s. Only the last AAC packet's *duration* is cut to the samples it stands for: a decoder that
// ignores durations gets up to 1023 samples of silence more.

namespace gallop {
namespace {

constexpr std::array<std::string_view, 10> presets{"ultrafast", "superfast", "veryfast", "faster",
                                                   "fast",      "medium",    "slow",     "slower",
                                                   "veryslow",  "placebo"};
constexpr std::array<std::string_view, 6> pix_fmts{"yuv420p",     "yuv422p",     "yuv444p",
                                                   "yuv420p10le", "yuv422p10le", "yuv444p10le"};
/// A key frame every two seconds: players seek by them, contact sheets start from them.
constexpr int frames_per_group = 2 * frames_per_second;

void close_muxer(AVFormatContext* format) {
    avio_closep(&format->pb);
    avformat_free_context(format);
}
using MuxerHandle = Handle<AVFormatContext*, close_muxer>;

template <std::size_t N>
void check_choice(std::string_view what, std::string_view value,
                  const std::array<std::string_view, N>& allowed) {
    if (std::find(allowed.begin(), allowed.end(), value) == allowed.end())
        throw_input_error("{} is '{}' (must be one of {})", what, value, fmt::join(allowed, ", "));
}

void check_range(std::string_view what, int value, int low, int high) {
    if (value < low || value > high)
        throw_input_error("{} is {} (must be {} to {})", what, value, low, high);
}

AVPixelFormat pixel_format(const Mp4Options& options) {
    return av_get_pix_fmt(options.pix_fmt.c_str());
}

/// RGB → Y′CbCr by the bt709 matrix, limited range, chroma averaged over all of its pixels and,
/// where rows are halved, sited where H.264 puts it by default: left, half way down.
ScalerHandle make_scaler(const Mp4Options& options) {
    ScalerHandle scaler(sws_alloc_context());
    if (!scaler) throw OutOfMemoryError("no memory for a colour converter");
    const AVPixFmtDescriptor* format = av_pix_fmt_desc_get(pixel_format(options));
    const auto set = [&](const char* name, std::int64_t value) {
        check_ffmpeg(av_opt_set_int(scaler.get(), name, value, 0), "colour conversion", name);
    };
    set("srcw", options.width);
    set("srch", options.height);
    set("dstw", options.width);
    set("dsth", options.height);
    set("src_format", AV_PIX_FMT_RGB24);
    set("dst_format", pixel_format(options));
    set("sws_flags",
        SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP | SWS_FULL_CHR_H_INT | SWS_BITEXACT);
    if (format->log2_chroma_w == 1) set("dst_h_chr_pos", 0);  // in 1/256 of a pixel
    if (format->log2_chroma_h == 1) set("dst_v_chr_pos", 128);
    check_ffmpeg(sws_init_context(scaler.get(), nullptr, nullptr), "colour conversion",
                 "setting up");
    const int* bt709 = sws_getCoefficients(SWS_CS_ITU709);
    constexpr int full = 1;
    constexpr int limited = 0;
    check_ffmpeg(
        sws_setColorspaceDetails(scaler.get(), bt709, full, bt709, limited, 0, 1 << 16, 1 << 16),
        "colour conversion", "choosing bt709");
    return scaler;
}

CodecHandle open_video(const Mp4Options& options, int muxer_flags, const std::string& name) {
    const AVCodec* codec = avcodec_find_encoder_by_name("libx264");
    if (codec == nullptr) throw Error("this FFmpeg has no libx264 (needed to write H.264)");
    CodecHandle encoder(avcodec_alloc_context3(codec));
    if (!encoder) throw OutOfMemoryError("no memory for an H.264 encoder");
    AVCodecContext& c = *encoder.get();
    c.width = options.width;
    c.height = options.height;
    c.pix_fmt = pixel_format(options);
    c.time_base = {1, frames_per_second};
    c.framerate = {frames_per_second, 1};
    c.sample_aspect_ratio = {1, 1};
    c.gop_size = frames_per_group;
    c.color_primaries = AVCOL_PRI_BT709;
    c.color_trc = AVCOL_TRC_BT709;
    c.colorspace = AVCOL_SPC_BT709;
    c.color_range = AVCOL_RANGE_MPEG;
    if (av_pix_fmt_desc_get(c.pix_fmt)->log2_chroma_h == 1)
        c.chroma_sample_location = AVCHROMA_LOC_LEFT;
    c.thread_count = options.threads;
    c.flags |= AV_CODEC_FLAG_BITEXACT;
    if ((muxer_flags & AVFMT_GLOBALHEADER) != 0) c.flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    check_ffmpeg(av_opt_set(c.priv_data, "preset", options.preset.c_str(), 0), name, "preset");
    check_ffmpeg(av_opt_set_double(c.priv_data, "crf", options.crf, 0), name, "crf");
    // Otherwise x264 decides by sums whose order is the processor's.
    check_ffmpeg(av_opt_set(c.priv_data, "x264-params", "cpu-independent=1", 0), name,
                 "cpu-independent");
    check_ffmpeg(avcodec_open2(&c, codec, nullptr), name, "cannot open the H.264 encoder");
    return encoder;
}

CodecHandle open_audio(const Mp4Options& options, int muxer_flags, const std::string& name) {
    const AVCodec* codec = avcodec_find_encoder_by_name("aac");
    if (codec == nullptr) throw Error("this FFmpeg has no AAC encoder");
    CodecHandle encoder(avcodec_alloc_context3(codec));
    if (!encoder) throw OutOfMemoryError("no memory for an AAC encoder");
    AVCodecContext& c = *encoder.get();
    c.sample_fmt = AV_SAMPLE_FMT_FLTP;
    c.sample_rate = sample_rate;
    c.time_base = {1, sample_rate};
    c.bit_rate = options.audio_bitrate;
    av_channel_layout_default(&c.ch_layout, 2);
    c.flags |= AV_CODEC_FLAG_BITEXACT;
    if ((muxer_flags & AVFMT_GLOBALHEADER) != 0) c.flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    check_ffmpeg(avcodec_open2(&c, codec, nullptr), name, "cannot open the AAC encoder");
    return encoder;
}

void check_audio(const Tensor& audio) {
    if (!audio.defined()) return;
    CHECK(audio.shape().rank() == 2 && audio.size(0) == 2 && audio.dtype() == DType::f32,
          "sound of shape {} (must be [2, S] f32)", to_string(audio.shape()));
}

}  // namespace

int encoder_threads(int width, int height) {
    constexpr int of_one = 960 * 544 / 4;  // pixels
    return std::clamp(width * height / of_one, 4, 16);
}

void check_options(const Mp4Options& options) {
    check_choice("video codec", options.codec, std::array<std::string_view, 1>{"h264"});
    check_choice("preset", options.preset, presets);
    check_choice("pix_fmt", options.pix_fmt, pix_fmts);
    check_range("crf", options.crf, 0, 51);
    check_range("encoder threads", options.threads, 1, 128);
    check_range("audio bitrate", options.audio_bitrate, 16'000, 512'000);
    check_range("width", options.width, 16, 16384);
    check_range("height", options.height, 16, 16384);
    const AVPixFmtDescriptor* format = av_pix_fmt_desc_get(pixel_format(options));
    if (options.width % (1 << format->log2_chroma_w) != 0 ||
        options.height % (1 << format->log2_chroma_h) != 0)
        throw_input_error("size {}x{} (must be even for {})", options.width, options.height,
                          options.pix_fmt);
}

struct Mp4Writer::State {
    State(const std::filesystem::path& path, const Mp4Options& chosen, Tensor sound)
        : options(chosen),
          planes(yuv_format(chosen.pix_fmt).value()),
          audio(std::move(sound)),
          file(path),
          name(path.string()) {
        const std::string url = "file:" + file.path().string();
        check_ffmpeg(avformat_alloc_output_context2(muxer.out(), nullptr, "mp4", url.c_str()), name,
                     "cannot make an MP4 writer");
        AVFormatContext& format = *muxer.get();
        format.flags |= AVFMT_FLAG_BITEXACT;  // no date, no version
        scaler = make_scaler(options);
        video = open_video(options, format.oformat->flags, name);
        sound_encoder = open_audio(options, format.oformat->flags, name);
        video_stream = add_stream(video.get());
        video_stream->avg_frame_rate = {frames_per_second, 1};
        audio_stream = add_stream(sound_encoder.get());
        if (!options.comment.empty())
            check_ffmpeg(av_dict_set(&format.metadata, "comment", options.comment.c_str(), 0), name,
                         "no memory");
        check_ffmpeg(avio_open(&format.pb, url.c_str(), AVIO_FLAG_WRITE), name, "cannot open");
        check_ffmpeg(av_opt_set(format.priv_data, "movflags", "+faststart", 0), name, "faststart");
        check_ffmpeg(avformat_write_header(&format, nullptr), name, "cannot write the header");

        rgb.get()->format = AV_PIX_FMT_RGB24;
        yuv.get()->format = video.get()->pix_fmt;
        for (AVFrame* frame : {rgb.get(), yuv.get()}) {
            frame->width = options.width;
            frame->height = options.height;
            check_ffmpeg(av_frame_get_buffer(frame, 0), name, "no memory for a picture");
        }
        yuv.get()->color_range = AVCOL_RANGE_MPEG;
        yuv.get()->colorspace = AVCOL_SPC_BT709;
        yuv.get()->color_primaries = AVCOL_PRI_BT709;
        yuv.get()->color_trc = AVCOL_TRC_BT709;
    }

    AVStream* add_stream(const AVCodecContext* encoder) {
        AVStream* stream = avformat_new_stream(muxer.get(), nullptr);
        if (stream == nullptr) throw OutOfMemoryError("no memory for a stream");
        stream->time_base = encoder->time_base;
        check_ffmpeg(avcodec_parameters_from_context(stream->codecpar, encoder), name, "no memory");
        return stream;
    }

    /// Gives an encoder a frame (null: the end) and the muxer what comes out, in order of time.
    void encode(AVCodecContext* encoder, AVStream* stream, const AVFrame* frame) {
        check_ffmpeg(avcodec_send_frame(encoder, frame), name, "cannot encode");
        for (;;) {
            const int code = avcodec_receive_packet(encoder, packet.get());
            if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return;
            check_ffmpeg(code, name, "cannot encode");
            // libx264 in FFmpeg 5.1 leaves it 0, and the last picture would last no time.
            if (encoder == video.get()) packet.get()->duration = 1;
            packet.get()->stream_index = stream->index;
            av_packet_rescale_ts(packet.get(), encoder->time_base, stream->time_base);
            check_ffmpeg(av_interleaved_write_frame(muxer.get(), packet.get()), name,
                         "cannot write");
        }
    }

    /// The frame that the next picture goes into: written anew each time, because the encoder keeps
    /// references.
    AVFrame& next_picture() {
        check_ffmpeg(av_frame_make_writable(yuv.get()), name, "no memory for a picture");
        return *yuv.get();
    }

    void add_rgb(const std::uint8_t* pixels) {
        next_picture();
        // Copied, because the converter may read beyond the last pixel of a row.
        av_image_copy_plane(rgb.get()->data[0], rgb.get()->linesize[0], pixels, 3 * options.width,
                            3 * options.width, options.height);
        check_ffmpeg(sws_scale(scaler.get(), rgb.get()->data, rgb.get()->linesize, 0,
                               options.height, yuv.get()->data, yuv.get()->linesize),
                     name, "cannot convert a picture");
        add_picture();
    }

    void add_planes(const std::uint8_t* from) {
        AVFrame& to = next_picture();
        for (int plane = 0; plane < 3; ++plane) {
            const auto columns = plane == 0 ? options.width : planes.chroma_columns(options.width);
            const auto rows = plane == 0 ? options.height : planes.chroma_rows(options.height);
            const auto line = static_cast<int>(columns * planes.sample_bytes());
            av_image_copy_plane(to.data[plane], to.linesize[plane], from, line, line,
                                static_cast<int>(rows));
            from += line * rows;
        }
        add_picture();
    }

    /// Encodes what `next_picture` gave, and the sound beside it.
    void add_picture() {
        yuv.get()->pts = frames++;
        encode(video.get(), video_stream, yuv.get());
        add_sound(frames * samples_per_frame, false);
    }

    /// Encodes the sound up to sample `end`, in whole AAC frames unless it is the last call.
    void add_sound(std::int64_t end, bool last) {
        const std::int64_t whole = sound_encoder.get()->frame_size;
        const Index available = audio.defined() ? audio.size(1) : 0;
        while (samples < end && (last || end - samples >= whole)) {
            const FrameHandle frame = make_frame();
            const auto count = std::min(whole, end - samples);
            frame.get()->nb_samples = static_cast<int>(count);
            frame.get()->format = AV_SAMPLE_FMT_FLTP;
            frame.get()->sample_rate = sample_rate;
            frame.get()->pts = samples;
            av_channel_layout_default(&frame.get()->ch_layout, 2);
            check_ffmpeg(av_frame_get_buffer(frame.get(), 0), name, "no memory for sound");
            const Index given = std::clamp<Index>(available - samples, 0, count);
            for (Index channel = 0; channel < 2; ++channel) {
                auto* out = reinterpret_cast<float*>(frame.get()->data[channel]);
                if (given > 0)
                    std::copy_n(audio.data<float>() + channel * available + samples, given, out);
                std::fill(out + given, out + count, 0.0F);
            }
            encode(sound_encoder.get(), audio_stream, frame.get());
            samples += count;
        }
    }

    Mp4Facts finish() {
        CHECK(frames > 0, "{}: a clip without pictures", name);
        add_sound(frames * samples_per_frame, true);
        encode(sound_encoder.get(), audio_stream, nullptr);
        encode(video.get(), video_stream, nullptr);
        check_ffmpeg(av_write_trailer(muxer.get()), name, "cannot write the index");
        check_ffmpeg(muxer.get()->pb->error, name, "cannot write");
        check_ffmpeg(avio_closep(&muxer.get()->pb), name, "cannot write");
        Mp4Facts facts = verify_mp4(file.path(), frames, options.width, options.height);
        file.commit();
        return facts;
    }

    Mp4Options options;
    YuvFormat planes;
    Tensor audio;
    AtomicFile file;  // before the muxer, which must let go of it first
    std::string name;
    MuxerHandle muxer;
    ScalerHandle scaler;
    CodecHandle video;
    CodecHandle sound_encoder;
    AVStream* video_stream = nullptr;
    AVStream* audio_stream = nullptr;
    FrameHandle rgb = make_frame();
    FrameHandle yuv = make_frame();
    PacketHandle packet = make_packet();
    std::int64_t frames = 0;
    std::int64_t samples = 0;
};

Mp4Writer::Mp4Writer(const std::filesystem::path& path, const Mp4Options& options, Tensor audio) {
    redirect_ffmpeg_log();
    check_options(options);
    check_audio(audio);
    state_ = std::make_unique<State>(path, options, std::move(audio));
}

Mp4Writer::~Mp4Writer() = default;

void Mp4Writer::set_audio(Tensor audio) {
    CHECK(state_ != nullptr && state_->frames == 0, "sound for a clip that has begun");
    check_audio(audio);
    state_->audio = std::move(audio);
}

void Mp4Writer::add_frames(ConstTensorView frames) {
    CHECK(state_ != nullptr, "a picture for a clip that is finished or failed");
    const Mp4Options& options = state_->options;
    const Shape& shape = frames.shape();
    const Index height = options.height;
    const Index width = options.width;
    const Index samples = state_->planes.bytes(width, height);
    const bool rgb = shape.rank() == 4;
    CHECK(frames.dtype() == DType::u8 && shape.rank() > 0 &&
              (shape == Shape({shape[0], height, width, 3}) || shape == Shape({shape[0], samples})),
          "pictures of shape {} (must be [n, {}, {}, 3] or [n, {}])", to_string(shape), height,
          width, samples);
    try {
        for (Index n = 0; n < shape[0]; ++n) {
            const auto* picture = frames.rows(n, n + 1).data<std::uint8_t>();
            if (rgb)
                state_->add_rgb(picture);
            else
                state_->add_planes(picture);
        }
    } catch (...) {
        state_.reset();  // the temporary file goes at once
        throw;
    }
}

Mp4Facts Mp4Writer::finish() {
    CHECK(state_ != nullptr, "the end of a clip that is finished or failed");
    const std::unique_ptr<State> state = std::move(state_);
    return state->finish();
}

}  // namespace gallop
