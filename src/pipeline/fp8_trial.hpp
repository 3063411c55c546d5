#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/fp8_choice.hpp"
#include "model/transformer.hpp"

namespace gallop {

/// Where in a render a forward is.
struct Fp8Place {
    std::string prompt;  ///< "" for the negative one
    int step = 0;        ///< from 0
    int steps = 0;       ///< of that stage
};

/// One forward of a render: what the network is shown, on the backend.
struct Fp8Case {
    Fp8Place place;
    Tensor video;                  ///< [48, T, h, w] f32
    Tensor audio;                  ///< [A, 64] f32
    const Tensor* text = nullptr;  ///< [L, D] f32
};

/// How far a forward's velocity is from another's: ‖difference‖₂ / ‖the other‖₂; infinite when not finite.
struct Fp8Error {
    double picture = 0, sound = 0;
    double worst() const { return picture > sound ? picture : sound; }
};

/// The velocity of each case, on the host.
std::vector<Velocity> velocities_of(Transformer& network, const std::vector<Fp8Case>& cases,
                                    Backend& on);

/// A network whose linears are put in E4M3 and taken back between forwards. Beside its weights only the parts on trial
/// are held in E4M3: half a copy more when all of them are.
class Fp8Trial {
public:
    /// All must outlive it; the network's linears are in bf16. `truth`: a velocity of each case.
    Fp8Trial(Transformer& network, const std::vector<Fp8Case>& cases,
             const std::vector<Velocity>& truth, Backend& on)
        : network_(network), cases_(cases), truth_(truth), on_(on) {}

    /// The error of each case with these parts in E4M3 and no others. `each` is called after each forward.
    std::vector<Fp8Error> errors(const std::vector<Fp8Part>& parts,
                                 const std::function<void()>& each = {});

private:
    void put(const std::vector<Fp8Part>& parts);

    Transformer& network_;
    const std::vector<Fp8Case>& cases_;
    const std::vector<Velocity>& truth_;
    Backend& on_;
    std::map<std::string, Tensor> kept_;  ///< the weights of parts that are in E4M3 now
};

}  // namespace gallop
