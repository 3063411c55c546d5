// Makes system calls fail: preloaded (LD_PRELOAD) into a program whose disk shall break at a chosen moment.
//
//   FAULT_BELOW   folder; calls on files below it are counted                                   (required)
//   FAULT_STATE   file that holds the count, shared by all processes of a run                   (required)
//   FAULT_AT      number of the call that fails, from 1; 0: none
//   FAULT_LAST    number of the last one that fails (default: FAULT_AT); -1: all from there on, as a full disk
//   FAULT_ERRNO   ENOSPC (default), EIO, EDQUOT or EROFS
//   FAULT_LOG     gets a line "NUMBER CALL PATH" for each call
//   FAULT_SLEEP   seconds that each clip waits for its name: a slow disk, which costs no CPU time
//
// Counted are calls that make, write, flush or rename: open (for writing), write, fsync, rename, mkdir, truncate.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char* below;
static long fail_at, fail_last;
static int fail_with = ENOSPC;
static long* counter;
static int log_to = -1;
static unsigned slow;

__attribute__((constructor)) static void begin(void) {
    const char* text = getenv("FAULT_ERRNO");
    if (text && !strcmp(text, "EIO")) fail_with = EIO;
    if (text && !strcmp(text, "EDQUOT")) fail_with = EDQUOT;
    if (text && !strcmp(text, "EROFS")) fail_with = EROFS;
    fail_at = (text = getenv("FAULT_AT")) ? atol(text) : 0;
    fail_last = (text = getenv("FAULT_LAST")) ? atol(text) : fail_at;
    if (fail_last < 0) fail_last = LONG_MAX;
    slow = (text = getenv("FAULT_SLEEP")) ? (unsigned)atoi(text) : 0;
    if ((text = getenv("FAULT_LOG")))
        log_to = REAL(open)(text, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);
    if ((text = getenv("FAULT_STATE"))) {
        int state = REAL(open)(text, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
        if (state >= 0 && REAL(ftruncate)(state, sizeof(long)) == 0) {
            void* memory = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, state, 0);
            if (memory != MAP_FAILED) counter = memory;
        }
        if (state >= 0) close(state);
    }
    if (counter) below = getenv("FAULT_BELOW");
}

// Whether this call shall fail; counts it when its file is below the folder.
static int faulty(const char* call, const char* path) {
    char whole[PATH_MAX];
    if (!below || !path) return 0;
    if (path[0] != '/') {  // the folder part is enough
        char here[PATH_MAX / 2];
        if (!getcwd(here, sizeof here)) return 0;
        snprintf(whole, sizeof whole, "%s/%s", here, path);
        path = whole;
    }
    const size_t length = strlen(below);
    if (strncmp(path, below, length) || (path[length] != '/' && path[length])) return 0;
    const long number = __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
    const int fails = fail_at > 0 && number >= fail_at && number <= fail_last;
    if (log_to >= 0) {
        char line[PATH_MAX + 64];
        const int size = snprintf(line, sizeof line, "%ld %s %s%s\n", number, call,
                                  path[length] ? path + length + 1 : ".", fails ? " FAILED" : "");
        if (REAL(write)(log_to, line, (size_t)size) < 0) log_to = -1;
    }
    if (fails) errno = fail_with;
    return fails;
}

static int faulty_descriptor(const char* call, int descriptor) {
    char link[64], path[PATH_MAX];
    if (!below) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    const ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0) return 0;
    path[size] = 0;
    return faulty(call, path);
}

static int makes(int flags) { return (flags & (O_CREAT | O_TRUNC)) || (flags & O_ACCMODE) != O_RDONLY; }

#define OPEN(name)                                              \
    int name(const char* path, int flags, ...) {                \
        mode_t mode = 0;                                        \
        if (flags & (O_CREAT | O_TMPFILE)) {                    \
            va_list more;                                       \
            va_start(more, flags);                              \
            mode = va_arg(more, mode_t);                        \
            va_end(more);                                       \
        }                                                       \
        if (makes(flags) && faulty("open", path)) return -1;    \
        return REAL(name)(path, flags, mode);                   \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                      \
    int name(int folder, const char* path, int flags, ...) {                              \
        mode_t mode = 0;                                                                  \
        if (flags & (O_CREAT | O_TMPFILE)) {                                              \
            va_list more;                                                                 \
            va_start(more, flags);                                                        \
            mode = va_arg(more, mode_t);                                                  \
            va_end(more);                                                                 \
        }                                                                                 \
        if (makes(flags) && (folder == AT_FDCWD || path[0] == '/') && faulty("open", path)) \
            return -1;                                                                    \
        return REAL(name)(folder, path, flags, mode);                                     \
    }
OPENAT(openat)
OPENAT(openat64)

#define ON_DESCRIPTOR(result, name, call, parameters, arguments)  \
    result name parameters {                                      \
        if (faulty_descriptor(call, descriptor)) return -1;       \
        return REAL(name) arguments;                              \
    }
ON_DESCRIPTOR(ssize_t, write, "write", (int descriptor, const void* data, size_t size),
              (descriptor, data, size))
ON_DESCRIPTOR(ssize_t, pwrite, "write", (int descriptor, const void* data, size_t size, off_t at),
              (descriptor, data, size, at))
ON_DESCRIPTOR(ssize_t, pwrite64, "write",
              (int descriptor, const void* data, size_t size, off64_t at),
              (descriptor, data, size, at))
ON_DESCRIPTOR(ssize_t, writev, "write", (int descriptor, const struct iovec* parts, int count),
              (descriptor, parts, count))
ON_DESCRIPTOR(int, fsync, "fsync", (int descriptor), (descriptor))
ON_DESCRIPTOR(int, fdatasync, "fsync", (int descriptor), (descriptor))
ON_DESCRIPTOR(int, ftruncate, "truncate", (int descriptor, off_t size), (descriptor, size))
ON_DESCRIPTOR(int, ftruncate64, "truncate", (int descriptor, off64_t size), (descriptor, size))

int rename(const char* from, const char* to) {
    if (faulty("rename", to)) return -1;
    const char* suffix = strrchr(to, '.');
    if (below && slow && suffix && !strcmp(suffix, ".mp4")) sleep(slow);
    return REAL(rename)(from, to);
}

int mkdir(const char* path, mode_t mode) {
    if (faulty("mkdir", path)) return -1;
    return REAL(mkdir)(path, mode);
}
