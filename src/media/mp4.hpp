#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "core/tensor.hpp"
#include "media/mp4_facts.hpp"

namespace gallop {

/// How a clip is encoded.
struct Mp4Options {
    int width = 0;  ///< pixels; even where the pixel format halves the chroma
    int height = 0;
    std::string codec = "h264";
    int crf = 18;  ///< 0 (lossless in 8 bits) … 51
    std::string preset = "fast";
    std::string pix_fmt = "yuv420p";  ///< or yuv422p, yuv444p, and these with 10le
    /// Of the H.264 encoder. Never the machine's core count: it changes the file's bytes. See encoder_threads.
    int threads = 4;
    int audio_bitrate = 192'000;  ///< AAC, bits a second
    std::string comment;          ///< metadata; JSON survives
};

/// Threads for pictures of a size: 4 up to 960×544, 16 from 1920×1088 on, where one clip takes 5 to 30 seconds
/// of a processor (x264's fast preset; 30: noise).
int encoder_threads(int width, int height);

/// Throws InputError when an option has no such value.
void check_options(const Mp4Options& options);

/// Writes one clip: H.264 at 25 pictures a second tagged bt709, AAC stereo at 44.1 kHz, index in
/// front (faststart). The same input on the same build gives the same bytes on every processor. The file appears under
/// its name, whole and verified, when `finish` returns; before that, and after any exception, there
/// is nothing.
class Mp4Writer {
public:
    /// audio: [2, S] f32 at 44,100 Hz, or undefined for silence. It is cut or padded with zeros to
    /// 1764 samples a picture. Throws InputError for a wrong option, Error when the file can't be
    /// made.
    Mp4Writer(const std::filesystem::path& path, const Mp4Options& options, Tensor audio);
    ~Mp4Writer();

    /// Gives the sound, as above, where it was not there yet; before the first picture.
    void set_audio(Tensor audio);

    /// Adds pictures: [n, Y, X, 3] u8 RGB, host, or [n, B] u8, the planes that `pix_fmt` names (see
    /// YuvFormat); both give the same file. Throws Error when the disk is full.
    void add_frames(ConstTensorView frames);
    /// Ends the file, reads all of it back (`verify_mp4`) and gives it its name. Nothing may be
    /// added afterwards. Throws Error.
    Mp4Facts finish();

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace gallop
