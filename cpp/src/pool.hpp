// Threads that are made once and share out tasks.
#pragma once

#include <cstddef>
#include <functional>

namespace actgrid {

/// Calls task(0) .. task(count - 1), each once, on up to `threads` threads, this one included.
/// Any thread may call it, many at once; with one thread no other is made or woken. Throws the
/// first exception that a task threw, once no task is running any more.
void parallel_for(std::ptrdiff_t count, int threads,
                  const std::function<void(std::ptrdiff_t)>& task);

}  // namespace actgrid
