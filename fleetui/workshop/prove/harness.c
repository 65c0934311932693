/* Runs a compiled model for the prover on a foreign processor: inputs in on stdin, outputs out on stdout.
 *
 *   harness KERNELS WEIGHTS|- ROWS N_IN SIZE... N_OUT SIZE...
 *
 * Sizes are bytes. It reads one set of inputs after the other until stdin ends. Exit code: 0 done, 3 the kernels
 * could not be loaded, 4 no memory or a file that cannot be read, 10 + code when fm_run refuses. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*run_fn)(const void *const *, void *const *, uint32_t, const void *, void *, const void *);
typedef size_t (*size_fn)(uint32_t);

static void *aligned(size_t size) {
    void *p = NULL;
    return posix_memalign(&p, 64, size + 64) ? NULL : memset(p, 0, size + 64);
}

static int fill(void *into, size_t size) { return fread(into, 1, size, stdin) == size; }

int main(int argc, char **argv) {
    if (argc < 6) return 2;
    void *lib = dlopen(argv[1], RTLD_NOW);
    if (!lib) { fprintf(stderr, "%s\n", dlerror()); return 3; }
    run_fn run = (run_fn)dlsym(lib, "fm_run");
    size_fn workspace = (size_fn)dlsym(lib, "fm_workspace");
    if (!run || !workspace) return 3;
    void *weights = NULL;
    if (strcmp(argv[2], "-")) {
        FILE *f = fopen(argv[2], "rb");
        if (!f || fseek(f, 0, SEEK_END)) return 4;
        long size = ftell(f);
        rewind(f);
        weights = aligned((size_t)size);
        if (!weights || fread(weights, 1, (size_t)size, f) != (size_t)size) return 4;
        fclose(f);
    }
    uint32_t rows = (uint32_t)strtoul(argv[3], NULL, 10);
    void *space = aligned(workspace(rows)), *ports[2][64];
    size_t sizes[2][64];
    int counts[2], at = 4;
    for (int side = 0; side < 2; side++) {
        if (at >= argc) return 2;
        counts[side] = atoi(argv[at++]);
        if (counts[side] > 64 || at + counts[side] > argc) return 2;
        for (int i = 0; i < counts[side]; i++) {
            sizes[side][i] = (size_t)strtoull(argv[at++], NULL, 10);
            ports[side][i] = aligned(sizes[side][i]);
            if (!ports[side][i]) return 4;
        }
    }
    if (!space) return 4;
    for (;;) {
        for (int i = 0; i < counts[0]; i++)
            if (!fill(ports[0][i], sizes[0][i])) return i ? 4 : 0;
        int code = run((const void *const *)ports[0], ports[1], rows, weights, space, NULL);
        if (code) return 10 + code;
        for (int i = 0; i < counts[1]; i++)
            if (fwrite(ports[1][i], 1, sizes[1][i], stdout) != sizes[1][i]) return 4;
        fflush(stdout);
    }
}
