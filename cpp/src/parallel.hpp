// Splitting the tiles among threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "actgrid/tiles.hpp"

namespace actgrid {

/// Calls task(0) .. task(count - 1), each once, on up to `threads` threads, this one included.
/// Throws the first exception that a task threw, once no task is running any more.
template <class Task>
void parallel_for(std::ptrdiff_t count, int threads, const Task& task) {
    std::atomic<std::ptrdiff_t> next{0};
    std::exception_ptr problem;
    std::once_flag first_problem;
    const auto work = [&] {
        try {
            for (std::ptrdiff_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;)
                task(i);
        } catch (...) {
            std::call_once(first_problem, [&] { problem = std::current_exception(); });
            next = count;  // nobody need go on
        }
    };
    std::vector<std::thread> helpers;
    const std::ptrdiff_t wanted = std::min<std::ptrdiff_t>(threads, count) - 1;
    helpers.reserve(static_cast<std::size_t>(std::max<std::ptrdiff_t>(wanted, 0)));
    try {
        for (std::ptrdiff_t i = 0; i < wanted; ++i) helpers.emplace_back(work);
    } catch (const std::exception&) {
        // No more threads to be had: those there are, and this one, do the work.
    }
    work();
    for (std::thread& helper : helpers) helper.join();
    if (problem) std::rethrow_exception(problem);
}

/// Shares out all tiles. Channels that are `interleaved`, neighbours in memory, go to
/// many(slice, first, last), ranges of whole groups of `lanes`; all others to one(slice, channel).
/// Groups begin at multiples of `lanes`, so that no channel's arithmetic depends on the threads.
template <class Many, class One>
void for_channels(const Tiles& tiles, bool interleaved, std::ptrdiff_t lanes, int threads,
                  const Many& many, const One& one) {
    // Below this many values starting a thread costs more than it saves.
    constexpr std::ptrdiff_t worthwhile = 1 << 18;
    if (tiles.count() * tiles.pixels() < worthwhile) threads = 1;
    const std::ptrdiff_t groups = (tiles.channels + lanes - 1) / lanes;
    const std::ptrdiff_t parts =
        tiles.slices >= threads ? 1 : std::min<std::ptrdiff_t>(threads, groups);
    parallel_for(tiles.slices * parts, threads, [&](std::ptrdiff_t i) {
        const std::ptrdiff_t slice = i / parts, part = i % parts;
        std::ptrdiff_t channel = groups * part / parts * lanes;
        const std::ptrdiff_t last = std::min(groups * (part + 1) / parts * lanes, tiles.channels);
        if (const std::ptrdiff_t whole = channel + (last - channel) / lanes * lanes;
            interleaved && whole > channel) {
            many(slice, channel, whole);
            channel = whole;
        }
        for (; channel < last; ++channel) one(slice, channel);
    });
}

}  // namespace actgrid
