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

// One call of parallel_for. It lives on the caller's stack.
struct Job {
    const std::function<void(std::ptrdiff_t)>& task;
    const std::ptrdiff_t count;
    std::atomic<std::ptrdiff_t> next{0};
    int helpers_wanted;                   // guarded by the pool's mutex
    std::atomic<int> helpers_at_work{0};  // changed under the pool's mutex
    std::exception_ptr problem;
    std::once_flag first_problem;

    Job(const std::function<void(std::ptrdiff_t)>& the_task, std::ptrdiff_t the_count, int helpers)
        : task(the_task), count(the_count), helpers_wanted(helpers) {}

    void work() {
        try {
            for (std::ptrdiff_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;)
                task(i);
        } catch (...) {
            std::call_once(first_problem, [&] { problem = std::current_exception(); });
            next = count;  // nobody need go on
        }
    }
};

// Looks for what is about to come before sleeping: to wake a thread takes as long as to draw a
// small layer, and measuring is soon followed by painting.
template <class Condition>
void spin_until(const Condition& condition) {
    constexpr auto patience = std::chrono::microseconds(100);
    const auto start = std::chrono::steady_clock::now();
    while (!condition() && std::chrono::steady_clock::now() - start < patience)
        for (int i = 0; i < 16 && !condition(); ++i)
            std::atomic_signal_fence(std::memory_order_seq_cst);
}

class Pool {
  public:
    void run(Job& job) {
        const int helpers = job.helpers_wanted;
        std::unique_lock lock(mutex_);
        grow(helpers);
        const auto place = jobs_.insert(jobs_.end(), &job);
        helpers_wanted_ += helpers;
        lock.unlock();
        for (int i = 0; i < helpers; ++i) wake_.notify_one();
        job.work();
        lock.lock();
        // From here on nobody can come to help.
        jobs_.erase(place);
        helpers_wanted_ -= job.helpers_wanted;
        lock.unlock();
        spin_until([&] { return job.helpers_at_work == 0; });
        lock.lock();
        left_.wait(lock, [&] { return job.helpers_at_work == 0; });
    }

  private:
    void grow(int threads) {
        try {
            for (; threads_ < threads; ++threads_) std::thread([this] { help(); }).detach();
        } catch (const std::exception&) {
            // No more threads to be had: those there are, and the caller, do the work.
        }
    }

    [[noreturn]] void help() {
        for (;;) {
            spin_until([&] { return helpers_wanted_ > 0; });
            std::unique_lock lock(mutex_);
            wake_.wait(lock, [&] { return helpers_wanted_ > 0; });
            Job& job = **std::find_if(jobs_.begin(), jobs_.end(),
                                      [](Job* one) { return one->helpers_wanted > 0; });
            --job.helpers_wanted;
            --helpers_wanted_;
            ++job.helpers_at_work;
            lock.unlock();
            job.work();
            lock.lock();
            if (--job.helpers_at_work == 0) left_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, left_;
    std::list<Job*> jobs_;
    std::atomic<int> helpers_wanted_{0};  // by all jobs; changed under the mutex
    int threads_ = 0;
};

// Never destroyed: its threads wait until the process ends. After a fork none of them is there,
// and the mutex may be held by one of them: the child starts anew.
Pool* the_pool = nullptr;

Pool& pool() {
    static std::once_flag made;
    std::call_once(made, [] {
        the_pool = new Pool;
#if __has_include(<pthread.h>)
        pthread_atfork(nullptr, nullptr, [] { the_pool = new Pool; });
#endif
    });
    return *the_pool;
}

}  // namespace

void parallel_for(std::ptrdiff_t count, int threads,
                  const std::function<void(std::ptrdiff_t)>& task) {
    const auto helpers = static_cast<int>(std::min<std::ptrdiff_t>(threads, count)) - 1;
    Job job(task, count, std::max(helpers, 0));
    if (helpers > 0)
        pool().run(job);
    else
        job.work();
    if (job.problem) std::rethrow_exception(job.problem);
}

}  // namespace actgrid
