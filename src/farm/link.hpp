#pragma once

#include <memory>
#include <optional>
#include <string>

namespace gallop {

/// Carries small texts between the ranks of a run. It never waits: a rank that is gone costs its
/// own messages and nothing else, so who needs an answer watches the clock. Texts between two ranks
/// arrive in their order. One thread only.
class Link {
public:
    struct Received {
        int from = 0;
        std::string text;
    };

    Link() = default;
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;
    virtual ~Link() = default;

    virtual int rank() const = 0;
    virtual int size() const = 0;
    /// Begins to send; a text to one's own rank arrives, too. `text`: shorter than 4 KB.
    virtual void send(int to, std::string text) = 0;
    /// The next text that has arrived.
    virtual std::optional<Received> receive() = 0;
    /// Drops what is still under way to a rank.
    virtual void forget(int rank) = 0;
    /// True when everything sent has left this rank.
    virtual bool quiet() = 0;
    /// Whether `receive` must be asked again and again, because nothing wakes its reader.
    virtual bool needs_polling() const = 0;
    /// The last call of the process that began the link. `all_well`: every rank is there and makes
    /// this call, too. Otherwise the process ends here with `code`: a library that waits for the
    /// dead must not be asked to take its leave.
    virtual void leave(bool all_well, int code) = 0;
};

/// The link of a process that is alone: rank 0 of 1.
std::unique_ptr<Link> make_solo_link();

/// Whether a launcher of MPI programs started this process (mpirun, srun --mpi=pmix), by the
/// environment alone.
bool launched_by_mpi();

/// The ranks of MPI_COMM_WORLD. Only Iprobe, Irecv, Isend and Test are used, so that a rank's death
/// never blocks another. Call once, before any thread is made. Throws Error.
std::unique_ptr<Link> make_mpi_link();

/// This rank's place among those on this machine, by what launchers put into the environment.
struct LocalPlace {
    int rank = 0;
    int size = 1;
};
LocalPlace local_place();

}  // namespace gallop
