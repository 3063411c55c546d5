#pragma once

#include <filesystem>

#include "farm/driver.hpp"
#include "farm/history.hpp"

namespace gallop {

/// Reads a run directory's plan and journals into what the coordinator starts from. A journal may be
/// any prefix of what was written, its lines damaged: what it does not know is found on disk when the
/// item's turn comes. An item whose files are gone or of other sizes than journalled is open again;
/// `RunStart::reopened` says so for the journal.
/// Throws InputError for a directory that holds no run, DiskError when files cannot be looked at.
RunStart load_run(const std::filesystem::path& directory);

/// The same by a history that has read nothing yet, and can follow what comes. `also` takes each event,
/// too.
RunStart load_run(RunHistory& history, const RunHistory::Sink& also = {});

}  // namespace gallop
