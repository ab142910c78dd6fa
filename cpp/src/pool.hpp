// A thread pool whose threads are started once and reused.
#pragma once

#include <cstddef>
#include <functional>

namespace actgrid {

/// Calls task(0) .. task(count - 1), each once, on up to `threads` threads, the caller's included.
/// Several threads may call it at the same time. With threads = 1, no other thread is started or
/// woken. If tasks throw, the first exception is rethrown after all running tasks have ended.
void parallel_for(std::ptrdiff_t count, int threads,
                  const std::function<void(std::ptrdiff_t)>& task);

}  // namespace actgrid
