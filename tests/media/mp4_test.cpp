#include "media/mp4.hpp"

#include <array>
#include <chrono>
#include <cmath>
#include <numbers>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clip.hpp"
#include "core/files.hpp"
#include "core/view.hpp"
#include "core/yuv.hpp"
#include "media/clip_encoder.hpp"
#include "media/command.hpp"
#include "media/digest.hpp"
#include "media/ffmpeg.hpp"
#include "ops/backend.hpp"
#include "support/ready.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr int side = 64;
constexpr std::array<std::array<std::uint8_t, 3>, 4> patches{
    {{200, 30, 40}, {30, 180, 60}, {20, 50, 210}, {128, 128, 128}}};

/// Pictures with a colour in each quarter and, in the middle, a stripe that moves.
Tensor pictures(Index count, Index first = 0) {
    Tensor frames({count, side, side, 3}, DType::u8);
    const auto view = as<std::uint8_t, 4>(frames.view());
    for (Index n = 0; n < count; ++n)
        for (Index y = 0; y < side; ++y)
            for (Index x = 0; x < side; ++x)
                for (Index c = 0; c < 3; ++c) {
                    const bool stripe = y >= 30 && y < 34 && (x + first + n) % 16 < 4;
                    const auto& patch = patches[static_cast<std::size_t>(y / 32 * 2 + x / 32)];
                    view(n, y, x, c) =
                        stripe ? std::uint8_t{255} : patch[static_cast<std::size_t>(c)];
                }
    return frames;
}

/// A 440 Hz tone that starts at sample `start` and fades; the right channel at half the loudness.
Tensor tone(Index samples, Index start = 0) {
    Tensor audio = Tensor::zeros({2, samples});
    for (Index i = start; i < samples; ++i) {
        const double t = static_cast<double>(i - start) / sample_rate;
        const auto value =
            static_cast<float>(0.6 * std::exp(-3 * t) * std::sin(2 * std::numbers::pi * 440 * t));
        audio.data<float>()[i] = value;
        audio.data<float>()[samples + i] = 0.5F * value;
    }
    return audio;
}

Mp4Options small() {
    Mp4Options options;
    options.width = side;
    options.height = side;
    options.threads = 2;
    return options;
}

/// What a decoder gives that honours edit lists.
struct Decoded {
    std::vector<float> left, right;
    std::vector<FrameHandle> pictures;
    std::vector<std::int64_t> milliseconds;  ///< when each picture is shown
};

Decoded decode(const std::filesystem::path& path) {
    Decoded result;
    MediaInput input(path);
    input.probe_streams();
    const AVStream* video = input.stream(AVMEDIA_TYPE_VIDEO);
    const AVStream* audio = input.stream(AVMEDIA_TYPE_AUDIO);
    const CodecHandle video_decoder = open_decoder(input, *video, {});
    const CodecHandle audio_decoder = open_decoder(input, *audio, {});
    const PacketHandle packet = make_packet();
    const FrameHandle frame = make_frame();
    for (bool more = true; more;) {
        more = input.read(packet.get());
        const int index = packet.get()->stream_index;
        if (!more || index == video->index)
            decode_packet(video_decoder.get(), more ? packet.get() : nullptr, frame.get(),
                          [&](AVFrame& picture) {
                              result.milliseconds.push_back(
                                  av_rescale_q(picture.pts, video->time_base, {1, 1000}));
                              result.pictures.emplace_back(av_frame_clone(&picture));
                              return true;
                          });
        if (!more || index == audio->index)
            decode_packet(audio_decoder.get(), more ? packet.get() : nullptr, frame.get(),
                          [&](AVFrame& sound) {
                              const auto* left = reinterpret_cast<float*>(sound.data[0]);
                              const auto* right = reinterpret_cast<float*>(sound.data[1]);
                              result.left.insert(result.left.end(), left, left + sound.nb_samples);
                              result.right.insert(result.right.end(), right,
                                                  right + sound.nb_samples);
                              return true;
                          });
    }
    return result;
}

class Mp4 : public testing::Test {
protected:
    std::filesystem::path path(const std::string& name = "clip.mp4") const {
        return folder_ / name;
    }
    Mp4Facts write(Index frames, Tensor audio, const Mp4Options& options = small(),
                   const std::string& name = "clip.mp4") {
        Mp4Writer writer(path(name), options, std::move(audio));
        for (Index at = 0; at < frames; at += 7)
            writer.add_frames(pictures(std::min<Index>(7, frames - at), at));
        return writer.finish();
    }
    std::vector<std::string> files() const {
        std::vector<std::string> names;
        for (const auto& entry : std::filesystem::directory_iterator(folder_.path()))
            names.push_back(entry.path().filename().string());
        return names;
    }
    test::TemporaryFolder folder_;
};

TEST_F(Mp4, HasEveryPictureAndASoundOfTheSameLength) {
    const Mp4Facts facts = write(25, tone(25 * samples_per_frame));
    EXPECT_EQ(facts.video_codec, "h264");
    EXPECT_EQ(facts.pix_fmt, "yuv420p");
    EXPECT_EQ(facts.frames, 25);
    EXPECT_EQ(facts.frames_per_second, 25);
    EXPECT_EQ(facts.width, side);
    EXPECT_EQ(facts.height, side);
    EXPECT_EQ(facts.video_seconds, 1.0);
    EXPECT_EQ(facts.audio_codec, "aac");
    EXPECT_EQ(facts.sample_rate, 44100);
    EXPECT_EQ(facts.channels, 2);
    EXPECT_EQ(facts.audio_seconds, 1.0);
    EXPECT_GE(facts.samples, 44100);
    EXPECT_LT(facts.samples, 44100 + 1024);
    EXPECT_EQ(facts.bytes, std::filesystem::file_size(path()));
    EXPECT_THAT(files(), testing::ElementsAre("clip.mp4"));
}

TEST_F(Mp4, IsTaggedAsBt709InLimitedRange) {
    const Mp4Facts facts = write(2, {});
    EXPECT_EQ(facts.color_matrix, "bt709");
    EXPECT_EQ(facts.color_primaries, "bt709");
    EXPECT_EQ(facts.color_transfer, "bt709");
    EXPECT_EQ(facts.color_range, "tv");
}

TEST_F(Mp4, IsReadAlikeByFfprobe) {
    if (!has_program("ffprobe")) GTEST_SKIP() << "the ffprobe program is not installed";
    for (const int frames : {1, 3, 26}) {
        Mp4Options options = small();
        options.comment = R"({"seed": 7, "prompt": "rain & \"wind\""})";
        write(frames, tone(5000), options);
        const auto text = output_of(
            "ffprobe -v error -count_frames -show_entries "
            "stream=codec_name,duration,nb_read_frames,color_space,color_range,start_time,"
            "chroma_location:format_tags=comment -of default " +
            path().string());
        ASSERT_TRUE(text);
        const std::string duration = fmt::format("duration={:.6f}\n", frames / 25.0);
        const auto first = text->find(duration);
        ASSERT_NE(first, std::string::npos) << *text;
        EXPECT_NE(text->find(duration, first + 1), std::string::npos) << *text;  // both streams
        EXPECT_THAT(*text, HasSubstr(fmt::format("nb_read_frames={}\n", frames)));
        EXPECT_THAT(*text, HasSubstr("codec_name=h264\n"));
        EXPECT_THAT(*text, HasSubstr("codec_name=aac\n"));
        EXPECT_THAT(*text, HasSubstr("color_space=bt709\n"));
        EXPECT_THAT(*text, HasSubstr("color_range=tv\n"));
        EXPECT_THAT(*text, HasSubstr("chroma_location=left\n"));
        EXPECT_THAT(*text, HasSubstr("TAG:comment=" + options.comment));
        const std::string start = "start_time=0.000000\n";
        const auto first_start = text->find(start);
        ASSERT_NE(first_start, std::string::npos) << *text;
        EXPECT_NE(text->find(start, first_start + 1), std::string::npos) << *text;
    }
}

TEST_F(Mp4, ShowsPictureNAtItsTime) {
    write(26, {});
    const Decoded decoded = decode(path());
    ASSERT_EQ(decoded.milliseconds.size(), 26U);
    for (std::size_t n = 0; n < 26; ++n)
        EXPECT_EQ(decoded.milliseconds[n], static_cast<std::int64_t>(40 * n));
}

TEST_F(Mp4, IsTheSameFileTwice) {
    write(30, tone(60000), small(), "a.mp4");
    write(30, tone(60000), small(), "b.mp4");
    EXPECT_EQ(digest_file(path("a.mp4")), digest_file(path("b.mp4")));
}

TEST_F(Mp4, PutsItsIndexInFront) {
    write(3, {});
    const std::string bytes = read_text(path());
    EXPECT_LT(bytes.find("moov"), bytes.find("mdat"));
}

/// Limited-range bt709 Y′CbCr → RGB, from BT.709-6 section 3: Kr = 0.2126, Kb = 0.0722.
std::array<double, 3> bt709(double y, double cb, double cr) {
    y = (y - 16) / 219 * 255;
    cb = (cb - 128) / 224 * 255;
    cr = (cr - 128) / 224 * 255;
    return {y + 1.5748 * cr, y - 0.1873 * cb - 0.4681 * cr, y + 1.8556 * cb};
}

// Planes as the engine makes them are what FFmpeg's converter makes of the same RGB: not a byte differs.
TEST_F(Mp4, PlanesGiveTheFileThatRgbGives) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(seed);
    std::mt19937 engine(seed);
    const auto on = make_cpu_backend();
    for (const std::string format :
         {"yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"}) {
        Mp4Options options = small();
        options.pix_fmt = format;
        options.crf = 0;  // nothing lost: a level that differs is seen
        options.width = static_cast<int>(32 + 2 * (engine() % 20));
        options.height = static_cast<int>(32 + 2 * (engine() % 20));
        Tensor rgb({3, options.height, options.width, 3}, DType::u8);
        // Noise, noise of extremes only, and dark noise.
        for (Index i = 0; i < rgb.numel(); ++i) {
            const Index picture = i * 3 / rgb.numel();
            const auto value = engine();
            rgb.data<std::uint8_t>()[i] =
                static_cast<std::uint8_t>(picture == 0   ? value
                                          : picture == 1 ? (value % 2) * 255
                                                         : value % 30);
        }
        const YuvFormat planes_format = yuv_format(format).value();
        Tensor planes({3, planes_format.bytes(options.width, options.height)}, DType::u8);
        on->to_yuv(rgb, planes_format, planes);
        const auto written = [&](ConstTensorView pictures, const std::string& name) {
            Mp4Writer writer(path(name), options, {});
            writer.add_frames(pictures);
            writer.finish();
            return digest_file(path(name));
        };
        EXPECT_EQ(written(planes, "planes.mp4"), written(rgb, "rgb.mp4")) << format;
    }
    Mp4Writer writer(path(), small(), {});
    EXPECT_THROW(writer.add_frames(Tensor::zeros({1, side * side}, DType::u8)), Error);
}

TEST_F(Mp4, KeepsColoursInEveryPixelFormat) {
    for (const std::string format :
         {"yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"}) {
        Mp4Options options = small();
        options.pix_fmt = format;
        options.crf = 8;
        EXPECT_EQ(write(3, {}, options).pix_fmt, format);
        const Decoded decoded = decode(path());
        const AVFrame& frame = *decoded.pictures.at(1).get();
        const bool ten = format.ends_with("10le");
        const int width_shift = format.find("444") == std::string::npos ? 1 : 0;
        const int height_shift = format.find("420") == std::string::npos ? 0 : 1;
        const auto value = [&](int plane, int y, int x) {
            const std::uint8_t* row = frame.data[plane] + y * frame.linesize[plane];
            return ten ? (row[2 * x] + 256 * row[2 * x + 1]) / 4.0 : double(row[x]);
        };
        for (std::size_t q = 0; q < patches.size(); ++q) {
            const int y = q / 2 == 0 ? 14 : 48;
            const int x = q % 2 == 0 ? 14 : 48;
            const auto rgb = bt709(value(0, y, x), value(1, y >> height_shift, x >> width_shift),
                                   value(2, y >> height_shift, x >> width_shift));
            // 3: half a step of each of Y′, Cb and Cr is up to 1.6 in RGB; the rest is crf 8.
            for (std::size_t c = 0; c < 3; ++c)
                EXPECT_NEAR(rgb[c], patches[q][c], 3)
                    << format << " patch " << q << " channel " << c;
        }
    }
}

TEST_F(Mp4, PlaysTheSoundWhereItWasPut) {
    constexpr Index start = 13000;
    const Tensor audio = tone(50 * samples_per_frame, start);
    write(50, audio.clone());
    const Decoded decoded = decode(path());
    const auto wanted = std::span(audio.data<float>(), static_cast<std::size_t>(audio.size(1)));
    const auto likeness = [&](std::span<const float> found, int lag) {
        double sum = 0;
        for (std::size_t i = 100; i + 100 < wanted.size(); ++i)
            sum += static_cast<double>(wanted[i]) *
                   static_cast<double>(found[static_cast<std::size_t>(static_cast<int>(i) + lag)]);
        return sum;
    };
    int best = -60;
    for (int lag = -60; lag <= 60; ++lag)  // a period is 100 samples
        if (likeness(decoded.left, lag) > likeness(decoded.left, best)) best = lag;
    EXPECT_EQ(best, 0) << "samples late";
    double error = 0, power = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        error += std::pow(decoded.left[i] - wanted[i], 2);
        power += std::pow(wanted[i], 2);
        // Right is left at half the loudness; 0.02: what AAC adds near the sudden start.
        ASSERT_NEAR(decoded.right[i], 0.5F * decoded.left[i], 0.02F) << i;
    }
    EXPECT_LT(error, 1e-3 * power);  // 30 dB: 192 kb/s does far better on a tone
    // Silence stays silence but for the pre-echo of one AAC window.
    for (std::size_t i = 0; i + 2048 < start; ++i) ASSERT_NEAR(decoded.left[i], 0, 1e-3) << i;
}

TEST_F(Mp4, CutsOrPadsTheSound) {
    for (const Index samples : {1, 1000, 1764, 100'000}) {
        const Mp4Facts facts = write(4, tone(samples));
        EXPECT_EQ(facts.audio_seconds, 0.16) << samples;
        const Decoded decoded = decode(path());
        ASSERT_GE(decoded.left.size(), 4U * samples_per_frame);
        for (std::size_t i = static_cast<std::size_t>(samples) + 2048; i < decoded.left.size(); ++i)
            ASSERT_NEAR(decoded.left[i], 0, 1e-3) << i;
    }
}

TEST_F(Mp4, MayBeOfAnyLength) {
    for (const Index frames : {1, 2, 3, 97}) {
        const Mp4Facts facts = write(frames, tone(frames * samples_per_frame));
        EXPECT_EQ(facts.frames, frames);
        EXPECT_DOUBLE_EQ(facts.video_seconds, static_cast<double>(frames) / 25);
        EXPECT_DOUBLE_EQ(facts.audio_seconds, static_cast<double>(frames) / 25);
    }
}

TEST_F(Mp4, InterleavesPictureAndSound) {
    write(100, tone(100 * samples_per_frame));
    MediaInput input(path());
    const PacketHandle packet = make_packet();
    std::vector<double> at(2, 0.0);
    std::int64_t last = -1;
    while (input.read(packet.get())) {
        EXPECT_GT(packet.get()->pos, last);  // read in the file's order
        last = packet.get()->pos;
        const int index = packet.get()->stream_index;
        at[static_cast<std::size_t>(index)] = static_cast<double>(packet.get()->dts) *
                                              av_q2d(input.format()->streams[index]->time_base);
        EXPECT_LT(std::abs(at[0] - at[1]), 0.2) << "seconds apart";
    }
}

TEST_F(Mp4, RefusesWrongOptions) {
    const auto with = [](auto change) {
        Mp4Options options = small();
        change(options);
        return options;
    };
    EXPECT_NO_THROW(check_options(small()));
    EXPECT_THROW(check_options(with([](auto& o) { o.codec = "vp9"; })), InputError);
    EXPECT_THROW(check_options(with([](auto& o) { o.preset = "fsat"; })), InputError);
    EXPECT_THROW(check_options(with([](auto& o) { o.pix_fmt = "rgb24"; })), InputError);
    EXPECT_THROW(check_options(with([](auto& o) { o.crf = 52; })), InputError);
    EXPECT_THROW(check_options(with([](auto& o) { o.threads = 0; })), InputError);
    EXPECT_THROW(check_options(with([](auto& o) { o.width = 65; })), InputError);
    EXPECT_THROW(check_options(with([](auto& o) { o.audio_bitrate = 1; })), InputError);
    EXPECT_NO_THROW(check_options(with([](auto& o) {
        o.width = 65;
        o.pix_fmt = "yuv444p";
    })));
}

TEST_F(Mp4, RefusesPicturesOfAnotherSizeAndClipsWithoutAny) {
    Mp4Writer writer(path(), small(), {});
    EXPECT_THROW(writer.add_frames(Tensor::zeros({1, 32, 64, 3}, DType::u8)), Error);
    EXPECT_THROW(writer.finish(), Error);
    EXPECT_THROW(writer.add_frames(pictures(1)), Error);  // it is over
    EXPECT_THAT(files(), IsEmpty());
}

TEST_F(Mp4, LeavesNothingWhenItIsAbandoned) {
    {
        Mp4Writer writer(path(), small(), tone(1000));
        writer.add_frames(pictures(3));
        EXPECT_EQ(files().size(), 1U);  // the temporary one
    }
    EXPECT_THAT(files(), IsEmpty());
}

TEST_F(Mp4, HasMoreThreadsForLargerPictures) {
    EXPECT_EQ(encoder_threads(64, 32), 4);
    EXPECT_EQ(encoder_threads(960, 544), 4);
    EXPECT_EQ(encoder_threads(1280, 720), 7);
    EXPECT_EQ(encoder_threads(1920, 1088), 16);
    EXPECT_EQ(encoder_threads(3840, 2176), 16);
}

TEST_F(Mp4, IsTheSameFromAThreadOfItsOwn) {
    constexpr Index count = 150;  // more than it holds of single ones
    write(count, tone(count * samples_per_frame), small(), "alone.mp4");
    ClipEncoder encoder(path(), small(), test::ready(tone(count * samples_per_frame)));
    for (Index at = 0; at < 20; ++at) encoder.add(pictures(1, at));
    for (Index at = 20; at < count; at += 10) encoder.add(pictures(10, at));
    EXPECT_EQ(encoder.finish().frames, count);
    EXPECT_EQ(digest_file(path()), digest_file(path("alone.mp4")));
}

TEST_F(Mp4, SaysWhatWentWrongOnAThreadOfItsOwn) {
    {
        ClipEncoder encoder(path(), small(), {});
        encoder.add(pictures(3));
        EXPECT_EQ(files().size(), 1U);  // the temporary one
    }
    EXPECT_THAT(files(), IsEmpty());
    EXPECT_THROW(ClipEncoder(path(), small(), {}).finish(), Error);
    {
        std::promise<Tensor> sound;
        sound.set_exception(std::make_exception_ptr(Error("no sound")));
        ClipEncoder deaf(path(), small(), sound.get_future());
        EXPECT_THROW(deaf.finish(), Error);
    }
    {
        ClipEncoder wrong(path(), small(), test::ready(Tensor({1, 9})));
        EXPECT_THROW(wrong.finish(), Error);
    }
    const auto add_odd_ones = [&] {
        ClipEncoder wrong(path(), small(), {});
        const Tensor odd = Tensor::zeros({1, 32, 64, 3}, DType::u8);
        for (;;) wrong.add(odd);
    };
    EXPECT_THROW(add_odd_ones(), Error);
    EXPECT_THAT(files(), IsEmpty());
}

TEST_F(Mp4, CannotBeWrittenWhereThereIsNoFolder) {
    write_atomically(path("file"), "x");
    EXPECT_THROW(Mp4Writer(path("file") / "clip.mp4", small(), {}), Error);
}

/// Runs `work` in a child process and gives its exit status.
template <class F>
int status_of_child(F work) {
    const ::pid_t child = ::fork();
    if (child == 0) ::_exit(work());
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(Mp4, LeavesNothingOnAFullDisk) {
    // A limit on the size of files stands for the full disk, at several points of the file.
    write(10, tone(10 * samples_per_frame));
    const auto whole = std::filesystem::file_size(path());
    std::filesystem::remove(path());
    for (const std::uint64_t limit : {std::uint64_t{0}, std::uint64_t{30}, whole / 2, whole - 1}) {
        const int status = status_of_child([&] {
            ::signal(SIGXFSZ, SIG_IGN);
            const ::rlimit bound{limit, limit};
            ::setrlimit(RLIMIT_FSIZE, &bound);
            try {
                write(10, tone(10 * samples_per_frame));
                return 1;
            } catch (const InputError&) {
                return 2;
            } catch (const Error&) {
                return 0;
            }
        });
        EXPECT_EQ(status, 0) << "limit " << limit;  // an Error that is worth another try
        EXPECT_THAT(files(), IsEmpty()) << "limit " << limit;
    }
}

TEST_F(Mp4, IsWholeOrAbsentAfterAKill) {
    std::mt19937 random(7);
    const auto begin = std::chrono::steady_clock::now();
    write(3, tone(5292));
    const auto one = std::chrono::steady_clock::now() - begin;  // longer under a sanitizer
    std::filesystem::remove(path());
    for (int round = 0; round < 12; ++round) {
        const ::pid_t child = ::fork();
        if (child == 0) {
            for (int n = 0;; ++n)
                write(3, tone(5292), small(), fmt::format("clip-{}-{}.mp4", round, n));
        }
        std::this_thread::sleep_for(one * (random() % 300) / 100);  // within the first three clips
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
    }
    int whole = 0;
    for (const std::string& name : files()) {
        if (name.ends_with(".tmp")) continue;
        EXPECT_NO_THROW(verify_mp4(path(name), 3, side, side)) << name;
        ++whole;
    }
    EXPECT_GT(whole, 0);
}

TEST_F(Mp4, IsCheckedAgainstWhatItShouldBe) {
    write(5, {});
    EXPECT_NO_THROW(verify_mp4(path(), 5, side, side));
    EXPECT_THROW(verify_mp4(path(), 6, side, side), Error);
    EXPECT_THROW(verify_mp4(path(), 5, side, 2 * side), Error);
    EXPECT_THROW(read_mp4(path("none.mp4")), InputError);
}

TEST_F(Mp4, IsFoundDamaged) {
    write(25, tone(44100));
    const std::string bytes = read_text(path());
    for (const double share : {0.1, 0.5, 0.95}) {
        write_atomically(path("cut.mp4"),
                         bytes.substr(0, static_cast<std::size_t>(share * double(bytes.size()))));
        try {
            verify_mp4(path("cut.mp4"), 25, side, side);
            FAIL() << share << " of the file passed";
        } catch (const InputError& error) {
            FAIL() << "an error of the writer, not of a request: " << error.what();
        } catch (const Error&) {
        }
    }
    std::string broken = bytes;
    const auto data = broken.find("mdat");
    std::fill(broken.begin() + static_cast<std::ptrdiff_t>(data + 1000),
              broken.begin() + static_cast<std::ptrdiff_t>(data + 1400), '\x5A');
    write_atomically(path("broken.mp4"), broken);
    EXPECT_THROW(verify_mp4(path("broken.mp4"), 25, side, side), Error);
}

}  // namespace
}  // namespace gallop
