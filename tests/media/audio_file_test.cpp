#include "media/audio_file.hpp"

#include <cmath>
#include <complex>
#include <cstring>
#include <numbers>
#include <string>

#include <gtest/gtest.h>

#include "core/clip.hpp"
#include "core/files.hpp"
#include "media/command.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

/// A 16-bit WAV file; `sample(i, channel)` in [−1, 1].
template <class F>
std::string wav(int rate, int channels, int samples, F sample) {
    const auto number = [](std::uint32_t value, int bytes) {
        std::string text;
        for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i));
        return text;
    };
    std::string data;
    for (int i = 0; i < samples; ++i)
        for (int c = 0; c < channels; ++c)
            data += number(static_cast<std::uint32_t>(std::lround(32767 * sample(i, c))), 2);
    const auto size = static_cast<std::uint32_t>(data.size());
    const auto uint = [](int value) { return static_cast<std::uint32_t>(value); };
    return "RIFF" + number(36 + size, 4) + "WAVEfmt " + number(16, 4) + number(1, 2) +
           number(uint(channels), 2) + number(uint(rate), 4) +
           number(uint(2 * rate * channels), 4) + number(uint(2 * channels), 2) + number(16, 2) +
           "data" + number(size, 4) + data;
}

double sine(int i, int rate, double hertz) {
    return 0.5 * std::sin(2 * std::numbers::pi * hertz * i / rate);
}

/// Amplitude of one frequency.
double amplitude(std::span<const float> samples, double hertz) {
    std::complex<double> sum = 0;
    for (std::size_t i = 0; i < samples.size(); ++i)
        sum += static_cast<double>(samples[i]) *
               std::polar(1.0, -2 * std::numbers::pi * hertz * static_cast<double>(i) /
                                   driving_sample_rate);
    return 2 * std::abs(sum) / static_cast<double>(samples.size());
}

class AudioFile : public testing::Test {
protected:
    std::filesystem::path save(const std::string& content, const std::string& name = "sound") {
        write_atomically(folder_ / name, content);
        return folder_ / name;
    }
    test::TemporaryFolder folder_;
};

TEST_F(AudioFile, KeepsLengthFrequencyAndLoudness) {
    const Tensor audio =
        load_audio(save(wav(44100, 2, 44100, [](int i, int) { return sine(i, 44100, 440); })));
    ASSERT_EQ(audio.shape().rank(), 1U);
    // One second; the resampler may end a sample early or late.
    EXPECT_NEAR(static_cast<double>(audio.size(0)), 51200, 2);
    const double at_440 = amplitude(audio.span<float>(), 440);
    EXPECT_NEAR(at_440, 0.5, 0.005);  // 1 %: both channels alike, so the mean is each of them
    for (const double other : {220.0, 438.0, 442.0, 880.0})
        EXPECT_LT(amplitude(audio.span<float>(), other), 0.01 * at_440) << other << " Hz";
}

TEST_F(AudioFile, TakesTheMeanOfTheChannels) {
    const Tensor audio = load_audio(save(wav(51200, 2, 5120, [](int i, int channel) {
        return channel == 0 ? sine(i, 51200, 1000) : sine(i, 51200, 3000);
    })));
    ASSERT_EQ(audio.size(0), 5120);  // the rate is already right
    EXPECT_NEAR(amplitude(audio.span<float>(), 1000), 0.25, 1e-4);
    EXPECT_NEAR(amplitude(audio.span<float>(), 3000), 0.25, 1e-4);
}

TEST_F(AudioFile, GivesMonoAtTheRightRateUnchanged) {
    const auto value = [](int i, int) { return (i % 200 - 100) / 100.0; };
    const Tensor audio = load_audio(save(wav(51200, 1, 1000, value)));
    ASSERT_EQ(audio.size(0), 1000);
    for (int i = 0; i < 1000; ++i)
        ASSERT_EQ(audio.data<float>()[i],
                  static_cast<float>(std::lround(32767 * value(i, 0))) / 32768.0F);
}

TEST_F(AudioFile, StopsAfterTheWantedSamples) {
    const auto path = save(wav(44100, 1, 88200, [](int i, int) { return sine(i, 44100, 440); }));
    const Tensor whole = load_audio(path);
    const Tensor half = load_audio(path, 25601);
    ASSERT_EQ(half.size(0), 25601);
    EXPECT_TRUE(std::equal(half.span<float>().begin(), half.span<float>().end(),
                           whole.span<float>().begin()));
    EXPECT_EQ(load_audio(path, 1 << 30).numel(), whole.numel());  // shorter than wanted: all of it
}

// Every sample, through several codecs and channel layouts.
TEST_F(AudioFile, EqualsTheFfmpegProgram) {
    if (!has_program("ffmpeg")) GTEST_SKIP() << "the ffmpeg program is not installed";
    const std::string source =
        "ffmpeg -y -v error -f lavfi -i 'aevalsrc=0.4*sin(880*t)+0.2*random(0)|"
        "0.5*sin(2000*t):d=0.7:s=44100' ";
    int tried = 0;
    for (const std::string made :
         {"a.wav", "a.flac", "a.mp3", "a.ogg", "a.m4a", "-ac 6 b.wav", "-ar 8000 c.wav",
          "-ar 51200 d.flac", "-c:a pcm_f32le e.wav", "-ar 48000 -ac 1 f.mp3"}) {
        const std::string name = made.substr(made.rfind(' ') + 1);
        const std::string options = made.substr(0, made.size() - name.size());
        const std::string path = (folder_ / name).string();
        if (!output_of(source + options + path)) continue;  // no such encoder in this FFmpeg
        const auto wanted =
            output_of("ffmpeg -v error -i " + path + " -ac 1 -ar 51200 -f s16le -bitexact -");
        ASSERT_TRUE(wanted) << made;
        const Tensor audio = load_audio(path);
        ASSERT_EQ(static_cast<std::size_t>(audio.numel()), wanted->size() / 2) << made;
        for (Index i = 0; i < audio.numel(); ++i) {
            std::int16_t sample = 0;
            std::memcpy(&sample, wanted->data() + 2 * i, 2);
            ASSERT_EQ(audio.data<float>()[i] * 32768.0F, sample) << made << ", sample " << i;
        }
        ++tried;
    }
    EXPECT_GE(tried, 6);
}

TEST_F(AudioFile, RefusesWhatHasNoSound) {
    EXPECT_THROW(load_audio(save("")), InputError);
    EXPECT_THROW(load_audio(save("words, words, words, and a few more words")), InputError);
    EXPECT_THROW(load_audio(folder_ / "missing.wav"), InputError);
    EXPECT_THROW(load_audio(save(wav(44100, 1, 0, [](int, int) { return 0.0; }))), InputError);
    EXPECT_THROW(load_audio(save(wav(44100, 1, 10, [](int, int) { return 0.0; })), 0), Error);
}

TEST_F(AudioFile, DoesNotFollowPlaylists) {
    save(wav(44100, 1, 4410, [](int i, int) { return sine(i, 44100, 440); }), "real.wav");
    EXPECT_THROW(load_audio(save("ffconcat version 1.0\nfile real.wav\n", "list.txt")), InputError);
    EXPECT_THROW(load_audio(save("#EXTM3U\n#EXTINF:1,\nreal.wav\n#EXT-X-ENDLIST\n", "list.m3u8")),
                 InputError);
}

}  // namespace
}  // namespace gallop
