#pragma once

#include "cli/options.hpp"

namespace gallop::cli {

/// What a process says to its caller.
enum ExitCode : int {
    done = 0,
    internal_error = 1,
    wrong_request = 2,
    finished_with_failures = 3,  ///< all was tried, some items are quarantined
    stopped_early = 4,           ///< resumable; also when the disk refused
};

/// A command: its name, what `gallop COMMAND --help` prints, and what it does with the arguments
/// behind its name. `run` throws as the rooms below do.
struct Command {
    const char* name;
    const char* help;
    int (*run)(const Arguments& arguments);
};

extern const Command inspect_command;                                // inspect_commands.cpp
extern const Command check_command, plan_command;                    // plan_commands.cpp
extern const Command explain_command, schema_command;                // plan_commands.cpp
extern const Command run_command;                                    // run_command.cpp
extern const Command renderer_command;                               // renderer_command.cpp
extern const Command decode_command;                                 // decode_command.cpp
extern const Command probe_command, make_model_command;              // model_commands.cpp
extern const Command status_command, retry_command;                  // status_commands.cpp
extern const Command index_command, export_command, report_command;  // dataset_commands.cpp
extern const Command fp8_command;                                    // fp8_command.cpp
extern const Command bench_command;                                  // bench_command.cpp
extern const Command launch_command;                                 // launch_command.cpp
extern const Command submit_command;                                 // submit_command.cpp
extern const Command verify_command, promote_command;                // verify_commands.cpp

}  // namespace gallop::cli
