#include "farm/failure.hpp"

#include <new>

#include <gtest/gtest.h>

#include "core/device_error.hpp"
#include "core/file_errors.hpp"

namespace gallop {
namespace {

template <class Thrown>
Failure of(const Thrown& thrown) {
    return failure_of(std::make_exception_ptr(thrown));
}

TEST(Failure, IsOfTheKindThatTheExceptionTells) {
    EXPECT_EQ(of(Error("e")).kind, FailureKind::error);
    EXPECT_EQ(of(InputError("e")).kind, FailureKind::input);
    EXPECT_EQ(of(OutOfMemoryError("e")).kind, FailureKind::out_of_memory);
    EXPECT_EQ(of(std::bad_alloc()).kind, FailureKind::out_of_memory);
    EXPECT_EQ(of(DiskError("e")).kind, FailureKind::disk);
    EXPECT_EQ(of(BadOutputError("e")).kind, FailureKind::bad_output);
    EXPECT_EQ(of(DeviceError("e")).kind, FailureKind::crash);
    EXPECT_EQ(of(std::runtime_error("e")).error, "e");
    EXPECT_EQ(of(42).kind, FailureKind::error);
}

TEST(Failure, OfAHostWithoutAUsableDeviceIsAWrongRequestAtTheBeginningOnly) {
    const auto at_first = [](const auto& thrown) {
        return failure_to_begin(std::make_exception_ptr(thrown)).kind;
    };
    EXPECT_EQ(at_first(NoDeviceError("e")), FailureKind::input);
    EXPECT_EQ(at_first(BusyDeviceError("e")), FailureKind::crash) << "it may be free later";
    EXPECT_EQ(at_first(DeviceError("e")), FailureKind::crash);
    EXPECT_EQ(at_first(OutOfMemoryError("e")), FailureKind::out_of_memory);
    EXPECT_EQ(at_first(42), FailureKind::error);
    EXPECT_EQ(of(NoDeviceError("e")).kind, FailureKind::crash) << "no fault of the item";
}

TEST(Failure, NamesEachKindAndFindsItByItsName) {
    for (const FailureKind kind :
         {FailureKind::error, FailureKind::input, FailureKind::out_of_memory, FailureKind::crash,
          FailureKind::hung, FailureKind::bad_output, FailureKind::disk, FailureKind::lost})
        EXPECT_EQ(failure_kind(name_of(kind)), kind);
    EXPECT_EQ(name_of(FailureKind::out_of_memory), "out_of_memory");
    EXPECT_FALSE(failure_kind("OOM").has_value());
}

TEST(FirstLineOf, CountsTheLinesThatItLeavesOut) {
    EXPECT_EQ(first_line_of("signal 9"), "signal 9");
    EXPECT_EQ(first_line_of("signal 9\n"), "signal 9");
    EXPECT_EQ(first_line_of("missing:\n  a"), "missing: (and 1 more line)");
    EXPECT_EQ(first_line_of("missing:\n  a\n  b\n"), "missing: (and 2 more lines)");
}

TEST(Shortened, CutsAtACharactersEdge) {
    EXPECT_EQ(shortened("abcdef", 6), "abcdef");
    EXPECT_EQ(shortened("abcdefg", 6), "abc…");
    EXPECT_EQ(shortened("aäöü", 6), "aä…");
    EXPECT_EQ(shortened("äöü", 5), "ä…");
    EXPECT_EQ(shortened("äöü", 4), "…");
    EXPECT_EQ(shortened("", 3), "");
    EXPECT_EQ(shortened("abcd", 2), "");
}

TEST(Shortened, LeavesOnlyTextThatALineCanHold) {
    EXPECT_EQ(shortened("a\xff\x01\tb\nc", 100), "a?  b\nc");
}

}  // namespace
}  // namespace gallop
