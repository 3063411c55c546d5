#pragma once

#include <string>
#include <vector>

namespace gallop {

/// What starts ranks on this machine.
struct LaunchSite {
    std::string mpirun;              ///< first line of `mpirun --version`; "" where there is none
    bool ulfm = false;               ///< an Open MPI built to go on after a rank's death
    std::vector<std::string> nodes;  ///< of the Slurm allocation; empty outside of one
    std::string here;                ///< the node of it that this process is on; "" on none
    bool srun_pmix = false;          ///< `srun --mpi=list` names pmix
};

/// Looks around: the environment, mpirun, ompi_info, srun and scontrol on the PATH.
LaunchSite look_around();

enum class Launcher { automatic, srun, mpirun };

struct LaunchRequest {
    int ranks = 0;                   ///< 0: one a node
    std::vector<std::string> nodes;  ///< on these; empty: all of the allocation, or this machine
    Launcher with = Launcher::automatic;
    std::vector<std::string> program;  ///< what each rank executes
};

/// The command that starts the program's ranks such that the others outlive the death of one:
/// `mpirun --enable-recovery` (Open MPI 4), `mpirun --with-ft ulfm` (5, where it can), `srun
/// --mpi=pmix --kill-on-bad-exit=0` with one task a node; the program itself for a single rank
/// on this machine. Throws InputError when there is no way, saying what is missing.
std::vector<std::string> command_of(const LaunchRequest& request, const LaunchSite& site);

/// A command as a shell reads it: words with special characters in quotes.
std::string shell_text(const std::vector<std::string>& command);

}  // namespace gallop
