#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "farm/serve.hpp"

namespace gallop {

/// One of any number of processes that render a planned run without a coordinator and without MPI:
/// each takes items by leases in the run directory, keeps a journal of its own, and looks into those
/// of the others. Processes may come and go; when the last item is decided, whoever sees it writes
/// `index.jsonl` and `COMPLETE`. The same policy as a coordinator's, but that nobody knows who else
/// there is: an item that failed here waits a while for another host before it is tried here again,
/// and an item is given up after `retry.attempts` failures of any kind.
///
/// Returns with `stopped` when asked by a signal, when the job's time is up, when the disk refuses
/// the journal, or when no renderer can be started (`trouble`). Throws InputError when the directory
/// holds no plan or a coordinator's run, Error.
ServeResult attach(const std::filesystem::path& directory, ServeOptions options,
                   const StopSignals& signals);

}  // namespace gallop
