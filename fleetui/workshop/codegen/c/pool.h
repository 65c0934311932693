/* The pool: one job at a time, its pieces drawn from a counter; waiting means spinning, then sleeping. */
#if defined(__linux__)
#if __has_include(<sys/syscall.h>)
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#else /* Android, without its headers */
#define SYS_futex 98
#define CLOCK_MONOTONIC 1
struct timespec { long tv_sec, tv_nsec; };
long syscall(long number, ...);
int clock_gettime(int clock, struct timespec *now);
#endif
static void pool_sleep(uint32_t *word, uint32_t seen) { syscall(SYS_futex, word, 128 /* wait, private */, seen, 0, 0, 0); }
static void pool_wake(uint32_t *word) { syscall(SYS_futex, word, 129 /* wake, private */, 0x7fffffff, 0, 0, 0); }
#elif defined(_WIN32)
__declspec(dllimport) void __stdcall Sleep(unsigned long ms);
static void pool_sleep(uint32_t *word, uint32_t seen) { if (__atomic_load_n(word, __ATOMIC_ACQUIRE) == seen) Sleep(0); }
static void pool_wake(uint32_t *word) { (void)word; }
#else
#include <time.h>
static void pool_sleep(uint32_t *word, uint32_t seen) {
    struct timespec pause = {0, 50000};
    if (__atomic_load_n(word, __ATOMIC_ACQUIRE) == seen) nanosleep(&pause, 0);
}
static void pool_wake(uint32_t *word) { (void)word; }
#endif

#define POOL_LINE __attribute__((aligned(128))) /* one cache line, and the one fetched with it */
typedef struct {
    fm_host host;
    uint32_t threads;
    uint32_t spins;
    uint32_t closed;
    POOL_LINE uint32_t busy;     /* somebody's job is in it */
    POOL_LINE uint32_t epoch;    /* one more for every job: what sleepers watch */
    uint32_t sleepers;
    int (*body)(void *, int32_t, int32_t);
    void *arg;
    int32_t n;
    POOL_LINE uint64_t next;     /* epoch in the upper half, the next piece in the lower */
    POOL_LINE uint32_t left;     /* pieces that are not done */
    uint32_t waiting;            /* the caller sleeps on left */
    int failed;
} pool;

static inline void pool_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || (defined(__arm__) && __ARM_ARCH >= 7)
    __asm__ volatile("yield");
#else
    __asm__ volatile("" ::: "memory");
#endif
}

/* Draw pieces of job `epoch` until none is left. A late thread cannot draw from the next job: the number differs. */
static void pool_draw(pool *p, uint32_t epoch) {
    for (;;) {
        uint64_t at = __atomic_load_n(&p->next, __ATOMIC_ACQUIRE);
        if ((uint32_t)(at >> 32) != epoch) return;
        /* Whoever sees a field of the next job here also sees that `next` has moved on, and its exchange fails. */
        int32_t n = __atomic_load_n(&p->n, __ATOMIC_ACQUIRE), i = (int32_t)(uint32_t)at;
        int (*body)(void *, int32_t, int32_t) = __atomic_load_n(&p->body, __ATOMIC_ACQUIRE);
        void *arg = __atomic_load_n(&p->arg, __ATOMIC_ACQUIRE);
        if (i >= n) return;
        if (!__atomic_compare_exchange_n(&p->next, &at, at + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) continue;
        int code = body(arg, i, n);
        if (code) __atomic_store_n(&p->failed, code, __ATOMIC_RELAXED);
        if (__atomic_sub_fetch(&p->left, 1, __ATOMIC_SEQ_CST) == 0 && __atomic_load_n(&p->waiting, __ATOMIC_SEQ_CST))
            pool_wake(&p->left);
    }
}

static int pool_for(void *ctx, int (*body)(void *, int32_t, int32_t), void *arg, int32_t n) {
    pool *p = ctx;
    int code = 0;
    if (n < 2 || p->threads < 2 || __atomic_exchange_n(&p->busy, 1, __ATOMIC_ACQUIRE)) {
        for (int32_t i = 0; i < n; i++) { int c = body(arg, i, n); if (c) code = c; }
        return code;
    }
    uint32_t epoch = p->epoch + 1;
    /* First nobody can draw any more, then the job changes, then it may be drawn from. */
    __atomic_store_n(&p->next, (uint64_t)epoch << 32 | 0x7fffffffu, __ATOMIC_RELEASE);
    __atomic_store_n(&p->body, body, __ATOMIC_RELEASE);
    __atomic_store_n(&p->arg, arg, __ATOMIC_RELEASE);
    __atomic_store_n(&p->n, n, __ATOMIC_RELEASE);
    __atomic_store_n(&p->failed, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&p->left, (uint32_t)n, __ATOMIC_RELAXED);
    __atomic_store_n(&p->next, (uint64_t)epoch << 32, __ATOMIC_RELEASE);
    __atomic_store_n(&p->epoch, epoch, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&p->sleepers, __ATOMIC_SEQ_CST)) pool_wake(&p->epoch);
    pool_draw(p, epoch);
    uint32_t left;
    for (uint32_t spin = 0; (left = __atomic_load_n(&p->left, __ATOMIC_ACQUIRE)) != 0;) {
        if (++spin < p->spins) { pool_pause(); continue; }
        __atomic_store_n(&p->waiting, 1, __ATOMIC_SEQ_CST);
        left = __atomic_load_n(&p->left, __ATOMIC_SEQ_CST);
        if (left) pool_sleep(&p->left, left);
        __atomic_store_n(&p->waiting, 0, __ATOMIC_SEQ_CST);
    }
    code = __atomic_load_n(&p->failed, __ATOMIC_RELAXED);
    __atomic_store_n(&p->busy, 0, __ATOMIC_RELEASE);
    return code;
}

/* How many pauses take so long: a pause is 5 ns on one processor and 50 on another. */
static uint32_t pool_spins(uint32_t us) {
#if defined(_WIN32)
    return us * 40;
#else
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 0; i < 2000; i++) pool_pause();
    clock_gettime(CLOCK_MONOTONIC, &b);
    int64_t ns = (int64_t)(b.tv_sec - a.tv_sec) * 1000000000 + (b.tv_nsec - a.tv_nsec);
    int64_t spins = (int64_t)us * 1000 * 2000 / (ns > 0 ? ns : 1);
    return spins < 1 ? 1u : spins > 100000000 ? 100000000u : (uint32_t)spins;
#endif
}

FM_API size_t FM(pool_size)(void) { return sizeof(pool) + 128; }

static pool *pool_at(void *memory) { return (pool *)(((uintptr_t)memory + 127) & ~(uintptr_t)127); }

FM_API int FM(pool_open)(void *memory, uint32_t threads, uint32_t spin_us) {
    if (!memory || !threads) return FM_BAD_ARGUMENT;
    pool *p = pool_at(memory);
    p->host.size = sizeof(fm_host);
    p->host.ctx = p;
    p->host.parallel_for = pool_for;
    p->host.threads = p->threads = threads;
    p->spins = pool_spins(spin_us);
    return FM_OK;
}

FM_API const fm_host *FM(pool_host)(void *memory) { return memory ? &pool_at(memory)->host : 0; }

FM_API int FM(pool_work)(void *memory, uint32_t index) {
    if (!memory || !index || index >= pool_at(memory)->threads) return FM_BAD_ARGUMENT;
    pool *p = pool_at(memory);
    uint32_t seen = 0;
    while (!__atomic_load_n(&p->closed, __ATOMIC_ACQUIRE)) {
        uint32_t now, spin = 0;
        while ((now = __atomic_load_n(&p->epoch, __ATOMIC_ACQUIRE)) == seen && ++spin < p->spins) pool_pause();
        if (now == seen) {
            __atomic_add_fetch(&p->sleepers, 1, __ATOMIC_SEQ_CST);
            if (__atomic_load_n(&p->epoch, __ATOMIC_SEQ_CST) == seen && !__atomic_load_n(&p->closed, __ATOMIC_SEQ_CST))
                pool_sleep(&p->epoch, seen);
            __atomic_sub_fetch(&p->sleepers, 1, __ATOMIC_SEQ_CST);
            continue;
        }
        seen = now;
        pool_draw(p, now);
    }
    return FM_OK;
}

FM_API void FM(pool_close)(void *memory) {
    if (!memory) return;
    pool *p = pool_at(memory);
    __atomic_store_n(&p->closed, 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&p->epoch, 1, __ATOMIC_SEQ_CST);
    pool_wake(&p->epoch);
}
