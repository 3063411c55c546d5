#include "emulation/device_memory.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>
#include <vector>

#include <sys/mman.h>

#include "emulation/chance.hpp"

namespace gallop::emulation {
namespace {

constexpr std::size_t unit = 256;
/// NaN in f32, bf16 and E4M3.
constexpr int poison = 0xff;
/// Of larger arrays only the beginning is filled.
constexpr std::size_t most_filled = std::size_t{32} << 20;
constexpr std::size_t reserved = std::size_t{1} << 40;

std::size_t rounded(std::size_t bytes) { return (bytes + unit - 1) / unit * unit; }

class Store {
public:
    Store()
        : begin_(static_cast<std::byte*>(mmap(
              nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
        if (begin_ == MAP_FAILED) throw std::bad_alloc();
    }

    void open() {
        if (opened_++ == 0) protect(PROT_READ | PROT_WRITE);
    }
    /// Out of reach again, most times later: that is slow.
    void close() {
        if (--opened_ == 0 && chance()() % 64 == 0) protect(PROT_NONE);
    }

    void* take(std::size_t bytes) {
        if (used_ + bytes > size_) return nullptr;
        const std::size_t room = rounded(bytes) + 2 * unit;
        std::vector<std::byte*>& free = free_[room];
        const bool fresh = free.empty();
        if (fresh) {
            const std::size_t end = end_ + room;
            if (end > reserved) return nullptr;
            if (end > ready_) {
                ready_ = std::min(reserved, (end / (std::size_t{64} << 20) + 1) << 26);
                protect(PROT_READ | PROT_WRITE);
            }
            free.push_back(begin_ + end_);
            end_ = end;
        }
        std::byte* const data = free.back() + unit;
        free.pop_back();
        lent_[data] = bytes;
        used_ += bytes;
        if (fresh) {  // what was returned was filled then
            const OpenMemory open;
            fill(data, bytes);
        }
        return data;
    }

    void give_back(void* pointer) {
        const auto found = lent_.find(static_cast<std::byte*>(pointer));
        if (found == lent_.end()) throw std::logic_error("a pointer is freed that is no array");
        const auto [data, bytes] = *found;
        lent_.erase(found);
        used_ -= bytes;
        const OpenMemory open;
        const auto intact = [](const std::byte* from, const std::byte* to) {
            return std::all_of(from, to, [](std::byte b) { return b == std::byte{poison}; });
        };
        if (!intact(data - unit, data) || !intact(data + bytes, data + rounded(bytes) + unit))
            throw std::logic_error("something was written beside an array of " +
                                   std::to_string(bytes) + " bytes");
        fill(data, bytes);
        free_[rounded(bytes) + 2 * unit].push_back(data - unit);
    }

    bool has(const void* data) const { return data >= begin_ && data < begin_ + reserved; }
    std::size_t used() const { return used_; }
    std::size_t size() const { return size_; }
    void resize(std::size_t bytes) { size_ = bytes; }

private:
    std::byte* begin_;
    std::size_t end_ = 0;
    std::size_t ready_ = 0;  ///< what `protect` covers
    int opened_ = 0;
    int how_ = PROT_NONE;
    std::size_t protected_ = 0;
    std::size_t size_ = std::size_t{16} << 30;
    std::size_t used_ = 0;
    std::map<std::byte*, std::size_t> lent_;
    std::map<std::size_t, std::vector<std::byte*>> free_;

    void protect(int how) {
        if (how == how_ && ready_ == protected_) return;
        if (ready_ > 0 && mprotect(begin_, ready_, how) != 0) std::abort();
        how_ = how;
        protected_ = ready_;
    }

    static void fill(std::byte* data, std::size_t bytes) {
        std::memset(data - unit, poison, unit + std::min(bytes, most_filled));
        std::memset(data + bytes, poison, rounded(bytes) - bytes + unit);
    }
};

Store& store() {
    static Store only;
    return only;
}

}  // namespace

OpenMemory::OpenMemory() { store().open(); }
OpenMemory::~OpenMemory() { store().close(); }

void* take_device_memory(std::size_t bytes) { return store().take(bytes); }
void return_device_memory(void* data) { store().give_back(data); }
bool is_device_memory(const void* data) { return store().has(data); }
std::size_t device_memory_used() { return store().used(); }
std::size_t device_memory_size() { return store().size(); }
void resize_device_memory(std::size_t bytes) { store().resize(bytes); }

}  // namespace gallop::emulation
