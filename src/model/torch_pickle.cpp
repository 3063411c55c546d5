#include "model/torch_pickle.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <unordered_map>
#include <utility>

#include "core/check.hpp"
#include "model/safetensors.hpp"

namespace gallop {
namespace {

// Values live in one list and name each other by index: cycles and depth cost nothing.
using Ref = std::uint32_t;

enum class Kind : std::uint8_t {
    none,
    scalar,
    integer,
    string,
    tuple,
    list,
    dict,
    global,
    storage,
    tensor
};

struct Value {
    Kind kind = Kind::none;
    std::int64_t integer = 0;  // also a boolean; of a tensor: the first element
    std::string_view text;     // borrowed from the pickle
    // Elements; of a dict: keys and values in turn; of a storage: type, key, count; of a tensor:
    // storage, extents, strides.
    std::vector<Ref> items;
};

// Twenty times what a checkpoint of the largest published network needs.
constexpr std::size_t max_values = 1U << 20;

struct StorageClass {
    std::string_view global;
    StoredType type;
};
constexpr std::array storage_classes{StorageClass{"torch.DoubleStorage", StoredType::f64},
                                     StorageClass{"torch.FloatStorage", StoredType::f32},
                                     StorageClass{"torch.HalfStorage", StoredType::f16},
                                     StorageClass{"torch.BFloat16Storage", StoredType::bf16},
                                     StorageClass{"torch.LongStorage", StoredType::i64},
                                     StorageClass{"torch.IntStorage", StoredType::i32},
                                     StorageClass{"torch.ShortStorage", StoredType::i16},
                                     StorageClass{"torch.CharStorage", StoredType::i8},
                                     StorageClass{"torch.ByteStorage", StoredType::u8},
                                     StorageClass{"torch.BoolStorage", StoredType::boolean}};

constexpr std::string_view ordered_dict = "collections.OrderedDict";
constexpr std::string_view size_class = "torch.Size";
constexpr std::string_view rebuild_tensor = "torch._utils._rebuild_tensor_v2";
constexpr std::string_view rebuild_parameter = "torch._utils._rebuild_parameter";

const StorageClass* storage_class(std::string_view global) {
    const auto* found = std::find_if(storage_classes.begin(), storage_classes.end(),
                                     [&](const StorageClass& c) { return c.global == global; });
    return found == storage_classes.end() ? nullptr : found;
}

class PickleMachine {
public:
    PickleMachine(std::string_view pickle, const std::string& file)
        : pickle_(pickle), file_(file) {}

    /// Runs to STOP and gives the value on top.
    Ref run() {
        for (;;) {
            const std::size_t at = at_;
            const auto code = static_cast<unsigned char>(take(1)[0]);
            if (code == '.') return pop();
            if (!step(code)) fail(at, fmt::format("opcode 0x{:02x} is not allowed", code));
        }
    }

    const Value& operator[](Ref ref) const { return values_[ref]; }

private:
    [[noreturn]] void fail(std::size_t at, const std::string& what) const {
        throw_input_error("{}: pickle byte {}: {}", file_, at, what);
    }
    [[noreturn]] void fail(const std::string& what) const { fail(at_, what); }

    std::string_view take(std::uint64_t count) {
        if (count > pickle_.size() - at_) fail("truncated");
        const auto taken = pickle_.substr(at_, static_cast<std::size_t>(count));
        at_ += static_cast<std::size_t>(count);
        return taken;
    }
    std::string_view take_line() {
        const std::size_t end = pickle_.find('\n', at_);
        if (end == std::string_view::npos) fail("truncated");
        const auto line = take(end - at_);
        take(1);
        return line;
    }
    template <class T>
    T number() {
        T value{};
        std::memcpy(&value, take(sizeof value).data(), sizeof value);
        return value;
    }

    Ref make(Value value) {
        if (values_.size() == max_values) fail(fmt::format("more than {} values", max_values));
        values_.push_back(std::move(value));
        return static_cast<Ref>(values_.size() - 1);
    }
    void push(Ref ref) {
        if (stack_.size() == max_values) fail(fmt::format("a stack of more than {}", max_values));
        stack_.push_back(ref);
    }
    void push(Value value) { push(make(std::move(value))); }
    void push_integer(std::int64_t value) { push({Kind::integer, value, {}, {}}); }
    // Nothing below the last mark may be popped.
    Ref pop() {
        if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) fail("the stack is empty");
        const Ref top = stack_.back();
        stack_.pop_back();
        return top;
    }
    std::vector<Ref> pop_mark() {
        if (marks_.empty()) fail("no mark on the stack");
        const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
        std::vector<Ref> items(begin, stack_.end());
        stack_.erase(begin, stack_.end());
        marks_.pop_back();
        return items;
    }
    void push_tuple(std::size_t count) {
        std::vector<Ref> items(count);
        for (std::size_t i = count; i-- > 0;) items[i] = pop();
        push({Kind::tuple, 0, {}, std::move(items)});
    }
    // The container on top of the stack, of the wanted kind.
    Value& top(Kind kind, const char* what) {
        const Ref ref = pop();
        push(ref);
        if (values_[ref].kind != kind) fail(fmt::format("{} expected", what));
        return values_[ref];
    }
    void extend(Kind kind, const char* what, const std::vector<Ref>& items) {
        if (kind == Kind::dict && items.size() % 2 != 0) fail("a key without a value");
        auto& into = top(kind, what).items;
        into.insert(into.end(), items.begin(), items.end());
    }
    void get(std::uint32_t slot) {
        const auto found = memo_.find(slot);
        if (found == memo_.end()) fail(fmt::format("nothing was memorised as {}", slot));
        push(found->second);
    }
    void put(std::uint32_t slot) {
        const Ref ref = pop();
        push(ref);
        memo_.insert_or_assign(slot, ref);
    }

    // One opcode; false for one that is not on the list. Names as in Python's pickletools.
    bool step(unsigned char code) {
        // clang-format off
        switch (code) {
            case 0x80: protocol(); return true;                                         // PROTO
            case '(': mark(); return true;                                              // MARK
            case '}': push({Kind::dict, 0, {}, {}}); return true;                       // EMPTY_DICT
            case ']': push({Kind::list, 0, {}, {}}); return true;                       // EMPTY_LIST
            case ')': push({Kind::tuple, 0, {}, {}}); return true;                      // EMPTY_TUPLE
            case 't': push({Kind::tuple, 0, {}, pop_mark()}); return true;              // TUPLE
            case 0x85: push_tuple(1); return true;                                      // TUPLE1
            case 0x86: push_tuple(2); return true;                                      // TUPLE2
            case 0x87: push_tuple(3); return true;                                      // TUPLE3
            case 'N': push(Value{}); return true;                                       // NONE
            case 0x88: push({Kind::scalar, 1, {}, {}}); return true;                    // NEWTRUE
            case 0x89: push({Kind::scalar, 0, {}, {}}); return true;                    // NEWFALSE
            case 'G': take(8); push({Kind::scalar, 0, {}, {}}); return true;            // BINFLOAT
            case 'J': push_integer(number<std::int32_t>()); return true;                // BININT
            case 'K': push_integer(number<std::uint8_t>()); return true;                // BININT1
            case 'M': push_integer(number<std::uint16_t>()); return true;               // BININT2
            case 0x8a: push_integer(long_integer()); return true;                       // LONG1
            case 'X': push_string(number<std::uint32_t>()); return true;                // BINUNICODE
            case 'q': put(number<std::uint8_t>()); return true;                         // BINPUT
            case 'r': put(number<std::uint32_t>()); return true;                        // LONG_BINPUT
            case 'h': get(number<std::uint8_t>()); return true;                         // BINGET
            case 'j': get(number<std::uint32_t>()); return true;                        // LONG_BINGET
            case 'a': append(); return true;                                            // APPEND
            case 'e': extend(Kind::list, "a list", pop_mark()); return true;            // APPENDS
            case 's': set_item(); return true;                                          // SETITEM
            case 'u': extend(Kind::dict, "a dict", pop_mark()); return true;            // SETITEMS
            case 'c': global(); return true;                                            // GLOBAL
            case 'Q': persistent(); return true;                                        // BINPERSID
            case 'R': reduce(); return true;                                            // REDUCE
            case 'b': build(); return true;                                             // BUILD
            default: return false;
        }
        // clang-format on
    }

    void protocol() {
        const int version = take(1)[0];
        if (version != 2) fail(fmt::format("protocol {} (torch.save's own is 2)", version));
    }
    void mark() {
        if (marks_.size() == max_values) fail(fmt::format("more than {} marks", max_values));
        marks_.push_back(stack_.size());
    }
    void push_string(std::uint32_t bytes) { push({Kind::string, 0, take(bytes), {}}); }

    std::int64_t long_integer() {
        const auto bytes = take(number<std::uint8_t>());
        if (bytes.size() > 8) fail(fmt::format("an integer of {} bytes (at most 8)", bytes.size()));
        std::uint64_t value = !bytes.empty() && (bytes.back() & 0x80) != 0 ? ~std::uint64_t{0} : 0;
        std::memcpy(&value, bytes.data(), bytes.size());
        return static_cast<std::int64_t>(value);
    }
    void append() {
        const Ref item = pop();
        extend(Kind::list, "a list", {item});
    }
    void set_item() {
        const Ref value = pop();
        const Ref key = pop();
        extend(Kind::dict, "a dict", {key, value});
    }

    void global() {
        const std::size_t at = at_;
        const std::string_view module = take_line();
        const std::string name = fmt::format("{}.{}", module, take_line());
        for (const std::string_view allowed :
             {ordered_dict, size_class, rebuild_tensor, rebuild_parameter})
            if (name == allowed) return push({Kind::global, 0, allowed, {}});
        if (const StorageClass* found = storage_class(name))
            return push({Kind::global, 0, found->global, {}});
        fail(at, fmt::format("global '{}' is not allowed", name));
    }

    // ('storage', class, key, location, count)
    void persistent() {
        const Value& id = values_[pop()];
        constexpr std::size_t max_key = 64;  // torch numbers its storages
        if (id.kind != Kind::tuple || id.items.size() != 5 ||
            values_[id.items[0]].text != "storage" || values_[id.items[1]].kind != Kind::global ||
            storage_class(values_[id.items[1]].text) == nullptr ||
            values_[id.items[2]].kind != Kind::string ||
            values_[id.items[2]].text.size() > max_key ||
            values_[id.items[4]].kind != Kind::integer)
            fail("a persistent id that is not a storage");
        push({Kind::storage, 0, {}, {id.items[1], id.items[2], id.items[4]}});
    }

    void reduce() {
        const Ref arguments = pop();
        const Ref callable = pop();
        if (values_[arguments].kind != Kind::tuple) fail("arguments that are not a tuple");
        if (values_[callable].kind != Kind::global)
            fail("a call of something that is not a global");
        const std::string_view name = values_[callable].text;
        const std::vector<Ref>& given = values_[arguments].items;  // until something is made
        if (name == ordered_dict) {
            if (!given.empty()) fail("arguments of OrderedDict");
            push(Value{Kind::dict, 0, {}, {}});
        } else if (name == rebuild_tensor) {
            // storage, offset, extents, strides, requires_grad, hooks[, metadata]
            if (given.size() < 6 || given.size() > 7 || values_[given[0]].kind != Kind::storage ||
                values_[given[1]].kind != Kind::integer || values_[given[2]].kind != Kind::tuple ||
                values_[given[3]].kind != Kind::tuple)
                fail("malformed arguments of _rebuild_tensor_v2");
            push({Kind::tensor, values_[given[1]].integer, {}, {given[0], given[2], given[3]}});
        } else if (name == rebuild_parameter) {
            if (given.size() != 3 || values_[given[0]].kind != Kind::tensor)
                fail("malformed arguments of _rebuild_parameter");
            push(given[0]);
        } else if (name == size_class) {
            if (given.size() != 1 || values_[given[0]].kind != Kind::tuple)
                fail("malformed arguments of torch.Size");
            push(given[0]);
        } else {
            fail(fmt::format("a call of '{}'", name));
        }
    }

    // Attributes of a state dict (`_metadata`); they are of no use here.
    void build() {
        const Ref state = pop();
        if (values_[state].kind != Kind::dict) fail("a state that is not a dict");
        top(Kind::dict, "a dict");
    }

    std::string_view pickle_;
    const std::string& file_;
    std::size_t at_ = 0;
    std::vector<Value> values_;
    std::vector<Ref> stack_;
    std::vector<std::size_t> marks_;
    std::unordered_map<std::uint32_t, Ref> memo_;
};

std::vector<std::uint64_t> naturals(const PickleMachine& machine, Ref tuple,
                                    const std::string& file, const std::string& name) {
    std::vector<std::uint64_t> numbers;
    for (const Ref item : machine[tuple].items) {
        if (machine[item].kind != Kind::integer || machine[item].integer < 0)
            throw_input_error("{}: {}: an extent or stride that is not a natural number", file,
                              name);
        if (numbers.size() == Shape::max_rank)
            throw_input_error("{}: {}: more than {} extents", file, name, Shape::max_rank);
        numbers.push_back(static_cast<std::uint64_t>(machine[item].integer));
    }
    return numbers;
}

PickledTensor read_tensor(const PickleMachine& machine, const Value& value, std::string name,
                          const std::string& file) {
    const Value& storage = machine[value.items[0]];
    PickledTensor made;
    made.type = storage_class(machine[storage.items[0]].text)->type;
    made.storage = machine[storage.items[1]].text;
    const std::vector<std::uint64_t> extents = naturals(machine, value.items[1], file, name);
    const std::vector<std::uint64_t> strides = naturals(machine, value.items[2], file, name);
    made.shape = stored_shape(file, name, extents, made.type);
    const auto count = static_cast<std::uint64_t>(made.shape.numel());

    bool contiguous = strides.size() == extents.size();
    std::uint64_t expected = 1;
    for (std::size_t axis = extents.size(); contiguous && count > 0 && axis-- > 0;) {
        contiguous = extents[axis] == 1 || strides[axis] == expected;  // no stride is taken along 1
        expected *= extents[axis];
    }
    if (!contiguous)
        throw_input_error(
            "{}: {}: not contiguous: extents [{}], strides [{}] (call .contiguous() before "
            "saving)",
            file, name, fmt::join(extents, ", "), fmt::join(strides, ", "));

    const std::int64_t stored = machine[storage.items[2]].integer;
    if (stored < 0 || value.integer < 0 || value.integer > stored ||
        count > static_cast<std::uint64_t>(stored - value.integer))
        throw_input_error("{}: {}: {} elements from {} leave its storage of {}", file, name, count,
                          value.integer, stored);
    made.storage_count = static_cast<std::uint64_t>(stored);
    made.first = static_cast<std::uint64_t>(value.integer);
    made.name = std::move(name);
    return made;
}

}  // namespace

std::vector<PickledTensor> read_torch_pickle(std::string_view pickle, const std::string& file) {
    PickleMachine machine(pickle, file);
    const Value* map = &machine[machine.run()];
    if (map->kind != Kind::dict) throw_input_error("{}: holds no map of tensors", file);
    const auto under = [&](std::string_view key) -> const Value* {
        for (std::size_t i = 0; i + 1 < map->items.size(); i += 2) {
            const Value& name = machine[map->items[i]];
            const Value& value = machine[map->items[i + 1]];
            if (name.kind == Kind::string && name.text == key && value.kind == Kind::dict)
                return &value;
        }
        return nullptr;
    };
    for (const std::string_view key : {"ema_state_dict", "state_dict", "model"})
        if (const Value* inner = under(key)) {
            map = inner;
            break;
        }

    std::vector<PickledTensor> tensors;
    std::set<std::string_view> names;
    for (std::size_t i = 0; i + 1 < map->items.size(); i += 2) {
        const Value& key = machine[map->items[i]];
        const Value& value = machine[map->items[i + 1]];
        if (key.kind != Kind::string || value.kind != Kind::tensor) continue;
        std::string_view name = key.text;
        if (name.starts_with("module.")) name.remove_prefix(7);
        if (!names.insert(name).second) throw_input_error("{}: names '{}' twice", file, name);
        tensors.push_back(read_tensor(machine, value, std::string(name), file));
    }
    if (tensors.empty()) throw_input_error("{}: holds no tensors", file);
    return tensors;
}

}  // namespace gallop
