#pragma once

namespace gallop {

/// The report's style sheet, the markup of its contact sheet, and the script that fills it.
extern const char* const report_style;
extern const char* const report_sheet;
extern const char* const report_script;

}  // namespace gallop
