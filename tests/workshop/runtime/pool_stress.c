/* Many jobs from two callers at once on one pool of four: every piece runs exactly once, failures come through. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fleet_model.h"
#include "pool.h"

#define MOST 64

typedef struct {
    int32_t n;
    int hits[MOST];
} job;

typedef struct {
    void *pool;
    uint32_t index;
} seat;

static const fm_host *host;

static void *worker(void *arg) {
    seat *s = arg;
    fm_pool_work(s->pool, s->index);
    return 0;
}

static int count(void *arg, int32_t i, int32_t n) {
    job *j = arg;
    if (n != j->n || i < 0 || i >= n) abort();
    __atomic_add_fetch(&j->hits[i], 1, __ATOMIC_RELAXED);
    return 0;
}

static int fail_once(void *arg, int32_t i, int32_t n) {
    (void)arg;
    return i == n / 2 ? 7 : 0;
}

static void *caller(void *arg) {
    unsigned seed = *(unsigned *)arg;
    for (int round = 0; round < 20000; round++) {
        job j = {.n = (int32_t)(rand_r(&seed) % MOST + 1)};
        if (host->parallel_for(host->ctx, count, &j, j.n)) abort();
        for (int i = 0; i < MOST; i++)
            if (j.hits[i] != (i < j.n)) fprintf(stderr, "round %d: piece %d ran %d times\n", round, i, j.hits[i]), abort();
        if (round % 50 == 0 && host->parallel_for(host->ctx, fail_once, 0, j.n) != 7) abort();
    }
    return 0;
}

int main(void) {
    for (uint32_t spin = 0; spin <= 50; spin += 25) {
        void *pool = calloc(1, fm_pool_size());
        pthread_t workers[3], callers[2];
        seat seats[3];
        unsigned seeds[2] = {spin + 1, spin + 2};
        if (fm_pool_open(pool, 4, spin) || fm_pool_open(pool, 0, 0) != FM_BAD_ARGUMENT) return 1;
        if (fm_pool_work(pool, 0) != FM_BAD_ARGUMENT || fm_pool_work(pool, 4) != FM_BAD_ARGUMENT) return 1;
        host = fm_pool_host(pool);
        for (uint32_t k = 0; k < 3; k++) {
            seats[k] = (seat){pool, k + 1};
            pthread_create(&workers[k], 0, worker, &seats[k]);
        }
        for (int k = 0; k < 2; k++) pthread_create(&callers[k], 0, caller, &seeds[k]);
        for (int k = 0; k < 2; k++) pthread_join(callers[k], 0);
        fm_pool_close(pool);
        for (int k = 0; k < 3; k++) pthread_join(workers[k], 0);
        free(pool);
    }
    puts("every piece ran once");
    return 0;
}
