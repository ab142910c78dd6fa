#include "pool.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <list>
#include <mutex>
#include <thread>

#if __has_include(<pthread.h>)
#include <pthread.h>
#endif

namespace actgrid {
namespace {

// The state of one parallel_for call, stored on the stack of the caller.
struct Job {
    const std::function<void(std::ptrdiff_t)>& task;
    const std::ptrdiff_t count;
    std::atomic<std::ptrdiff_t> next{0};
    int missing_helpers;                 // guarded by the mutex of the pool
    std::atomic<int> active_helpers{0};  // changed under the mutex of the pool
    std::exception_ptr exception;
    std::once_flag exception_flag;

    Job(const std::function<void(std::ptrdiff_t)>& job_task, std::ptrdiff_t task_count, int helpers)
        : task(job_task), count(task_count), missing_helpers(helpers) {}

    // Runs tasks until none is left.
    void run_tasks() {
        try {
            for (std::ptrdiff_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;)
                task(i);
        } catch (...) {
            std::call_once(exception_flag, [&] { exception = std::current_exception(); });
            next = count;  // no further task is started
        }
    }
};

// Spins for a short time before the caller sleeps: waking a thread takes as long as painting a
// small layer, and painting soon follows measuring.
template <class Condition>
void spin_until(const Condition& condition) {
    constexpr auto max_spin_time = std::chrono::microseconds(100);
    const auto start = std::chrono::steady_clock::now();
    while (!condition() && std::chrono::steady_clock::now() - start < max_spin_time)
        for (int i = 0; i < 16 && !condition(); ++i)
            std::atomic_signal_fence(std::memory_order_seq_cst);
}

class Pool {
  public:
    void run(Job& job) {
        const int helpers = job.missing_helpers;
        std::unique_lock lock(mutex_);
        start_threads(helpers);
        const auto position = jobs_.insert(jobs_.end(), &job);
        missing_helpers_ += helpers;
        lock.unlock();
        for (int i = 0; i < helpers; ++i) helpers_needed_.notify_one();
        job.run_tasks();
        lock.lock();
        // From here on no helper can join this job.
        jobs_.erase(position);
        missing_helpers_ -= job.missing_helpers;
        lock.unlock();
        spin_until([&] { return job.active_helpers == 0; });
        lock.lock();
        helpers_finished_.wait(lock, [&] { return job.active_helpers == 0; });
    }

  private:
    void start_threads(int threads) {
        try {
            for (; threads_ < threads; ++threads_) std::thread([this] { run_helper(); }).detach();
        } catch (const std::exception&) {
            // The system allows no more threads. The existing threads and the caller run the tasks.
        }
    }

    [[noreturn]] void run_helper() {
        for (;;) {
            spin_until([&] { return missing_helpers_ > 0; });
            std::unique_lock lock(mutex_);
            helpers_needed_.wait(lock, [&] { return missing_helpers_ > 0; });
            Job& job = **std::ranges::find_if(
                jobs_, [](Job* waiting) { return waiting->missing_helpers > 0; });
            --job.missing_helpers;
            --missing_helpers_;
            ++job.active_helpers;
            lock.unlock();
            job.run_tasks();
            lock.lock();
            if (--job.active_helpers == 0) helpers_finished_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable helpers_needed_, helpers_finished_;
    std::list<Job*> jobs_;
    std::atomic<int> missing_helpers_{0};  // of all jobs; changed under the mutex
    int threads_ = 0;
};

// The pool is never destroyed, because its threads wait until the process ends. A forked child has
// none of these threads, and one of them may have held the mutex, so the child creates a new pool.
Pool* pool_instance = nullptr;

Pool& get_pool() {
    static std::once_flag creation_flag;
    std::call_once(creation_flag, [] {
        pool_instance = new Pool;
#if __has_include(<pthread.h>)
        pthread_atfork(nullptr, nullptr, [] { pool_instance = new Pool; });
#endif
    });
    return *pool_instance;
}

}  // namespace

void parallel_for(std::ptrdiff_t count, int threads,
                  const std::function<void(std::ptrdiff_t)>& task) {
    const auto helpers = static_cast<int>(std::min<std::ptrdiff_t>(threads, count)) - 1;
    Job job(task, count, std::max(helpers, 0));
    if (helpers > 0)
        get_pool().run(job);
    else
        job.run_tasks();
    if (job.exception) std::rethrow_exception(job.exception);
}

}  // namespace actgrid
