#pragma once

#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/files.hpp"
#include "core/handle.hpp"

namespace gallop {

/// Who works on what, without anybody who hands it out: any number of processes, on any number of
/// machines, take items of a run by making files in a folder that all of them see.
///
/// A lease is the file `leases/ab/ID.GEN`, made with O_CREAT|O_EXCL, so that one process alone can
/// make it, and touched by a thread for as long as its holder lives. It is stale when it was not
/// touched for `ttl` seconds by the file server's clock, which is read off a file that one has just
/// touched: clocks of machines may differ. A stale lease is never renamed or removed, its successor
/// is `ID.(GEN+1)`. A holder who was only slow may finish nevertheless: outputs get their names by
/// rename, and are the same bytes whoever renders them.
///
/// On a network file system `ttl` must be longer than its attribute cache (minutes).
class LeaseFolder {
public:
    /// Makes `run`/leases. Throws DiskError, Error.
    LeaseFolder(const std::filesystem::path& run, double ttl);
    LeaseFolder(const LeaseFolder&) = delete;
    LeaseFolder& operator=(const LeaseFolder&) = delete;
    /// Gives back what is held.
    ~LeaseFolder();

    /// Takes an item; false when somebody holds it. Who gets it must look whether it has been
    /// decided meanwhile. Throws DiskError, Error when the folder cannot be written.
    bool claim(std::string_view id);
    bool holds(std::string_view id) const;
    /// The item is decided, and the journal says so: its leases go.
    void finish(std::string_view id);
    /// Lets go of an item that is not decided: the next one may take it at once.
    void give_back(std::string_view id);

    /// Whether no other process has touched its file here lately: they all have left or died.
    bool alone();
    /// The processes of other machines that have, by name ("HOST-NUMBER").
    std::vector<std::string> elsewhere();
    /// Whether there is none.
    bool only_host() { return elsewhere().empty(); }

    /// The file server's time, seconds since 1970. Throws Error.
    double server_time();

private:
    struct Held {
        Handle<int, detail::close_descriptor, -1> descriptor;
        int generation = 0;
    };
    std::filesystem::path path(std::string_view id, int generation) const;
    /// The other processes that have touched their files lately, by name.
    std::vector<std::string> others();
    void keep();

    std::filesystem::path folder_;
    double ttl_;
    std::filesystem::path clock_path_;
    Handle<int, detail::close_descriptor, -1> clock_;
    mutable std::mutex mutex_;
    std::map<std::string, Held, std::less<>> held_;
    bool ending_ = false;
    std::condition_variable wake_;
    std::thread keeper_;
};

}  // namespace gallop
