#pragma once

#include <future>
#include <utility>

namespace gallop::test {

/// A future that holds `value`.
template <class Value>
std::future<Value> ready(Value value) {
    std::promise<Value> made;
    made.set_value(std::move(value));
    return made.get_future();
}

}  // namespace gallop::test
