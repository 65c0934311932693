/* A compiled model: freestanding code with this C interface, version 1. Ships with every variant.
 *
 * A variant is three files: the kernels (a shared object, or a static archive for microcontrollers), the weights
 * (map them read-only, at any address that is a multiple of 64; there are none if fm_weights() is 0) and
 * model.json (names, shapes, dtypes and order of inputs and outputs). Static archives prefix every name with the
 * model's identifier: say #define FM_MODEL mobilenet before including this, and call FM(run)(...).
 *
 * Nothing here allocates, prints, or ends the process. Any number of threads may call a model at once, as long as
 * each brings its own workspace.
 */
#ifndef FLEET_MODEL_H
#define FLEET_MODEL_H
#include <stddef.h>
#include <stdint.h>

#define FM_ABI 1u
#define FM_ALIGN 64u /* of weights and workspace; inputs and outputs need the alignment of their elements */

enum {
    FM_OK = 0,
    FM_BAD_ARGUMENT = 1, /* a pointer that is missing */
    FM_BAD_ROWS = 2,     /* this many rows at once are not supported: see model.json */
    FM_MISALIGNED = 3,
    FM_HOST_FAILED = 4,  /* parallel_for did not return 0 */
    FM_KERNEL_FAILED = 5 /* a kernel, or the accelerator it drives, gave up */
};

/* Threads are the host's. parallel_for calls body(arg, i, n) once for every i in 0..n-1, in any order, on any
 * threads, and returns when all are done: 0, or not 0 if a body returned that. NULL for a host means: serially. */
typedef struct fm_host {
    uint32_t size; /* sizeof(fm_host) */
    void *ctx;
    int (*parallel_for)(void *ctx, int (*body)(void *arg, int32_t i, int32_t n), void *arg, int32_t n);
    uint32_t threads; /* how many work at once; 0: unknown. Read only if size says that it is there. */
} fm_host;

/* Everything a call needs, bound once: fm_call(&bound) is fm_run with one argument. */
typedef struct fm_bound {
    uint32_t size; /* sizeof(fm_bound) */
    uint32_t rows;
    const void *const *inputs;
    void *const *outputs;
    const void *weights;
    void *workspace;
    const fm_host *host;
} fm_bound;

#ifndef FM_MODEL
#define FM(name) fm_##name
#else
#define FM_JOIN_(model, name) model##_fm_##name
#define FM_JOIN(model, name) FM_JOIN_(model, name)
#define FM(name) FM_JOIN(FM_MODEL, name)
#endif

#ifndef FM_API
#define FM_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

FM_API uint32_t FM(abi)(void);
FM_API size_t FM(workspace)(uint32_t rows); /* bytes; 0 too if so many rows are not supported */
FM_API size_t FM(weights)(void);            /* bytes */
FM_API int FM(run)(const void *const *inputs, void *const *outputs, uint32_t rows, const void *weights,
                   void *workspace, const fm_host *host);
FM_API int FM(call)(const fm_bound *bound);

/* A pool of threads for hosts that have none (shared objects only). The host gives zeroed memory of fm_pool_size()
 * bytes and the threads: each calls fm_pool_work(pool, index), which returns after fm_pool_close. One pool serves
 * every model of the process; calls that find it busy run serially. Waiting threads spin for spin_us, then sleep. */
FM_API size_t FM(pool_size)(void);
FM_API int FM(pool_open)(void *pool, uint32_t threads, uint32_t spin_us);
FM_API int FM(pool_work)(void *pool, uint32_t index); /* index from 1 to threads - 1: the caller is thread 0 */
FM_API const fm_host *FM(pool_host)(void *pool);
FM_API void FM(pool_close)(void *pool);

/* For fleetui.common.runtime (shared objects only): functions of CPython's stable interface, by their addresses. */
typedef struct fm_python {
    size_t size;
    void *(*pointer)(void *capsule, const char *name); /* PyCapsule_GetPointer */
    void *(*save)(void);                               /* PyEval_SaveThread */
    void (*restore)(void *state);                      /* PyEval_RestoreThread */
    void *(*number)(long value);                       /* PyLong_FromLong */
    void (*raise)(void *error, void *value);           /* PyErr_SetObject */
    void (*keep)(void *object);                        /* Py_IncRef */
    void (*release)(void *object);                     /* Py_DecRef */
    void *none, *error;
} fm_python;
FM_API void FM(python_use)(const fm_python *functions);
FM_API void *FM(python_call)(void *self, void *nothing);

#ifdef __cplusplus
}
#endif
#endif
