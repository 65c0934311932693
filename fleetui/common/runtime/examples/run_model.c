/* Runs a compiled model from C: no Python, no runtime, nothing but the three files of a variant and libc.
 *
 *     cc -O2 -I FOLDER run_model.c -o run_model -ldl
 *     ./run_model FOLDER ROWS in0.bin [in1.bin ...] -- out0.bin BYTES [out1.bin BYTES ...]
 *
 * Inputs and outputs are raw numbers in the order, shape and dtype that model.json in FOLDER says.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fleet_model.h"

#define MOST 16

static void *map(const char *path, size_t *bytes) {
    struct stat about;
    int file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &about)) return perror(path), NULL;
    void *where = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    *bytes = (size_t)about.st_size;
    return where == MAP_FAILED ? (perror(path), NULL) : where;
}

static void *take(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found) fprintf(stderr, "%s\n", dlerror()), exit(1);
    return found;
}

int main(int argc, char **argv) {
    if (argc < 4) return fprintf(stderr, "usage: %s FOLDER ROWS IN... -- OUT BYTES...\n", argv[0]), 2;
    char path[4096];
    snprintf(path, sizeof path, "%s/kernels", argv[1]);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) return fprintf(stderr, "%s\n", dlerror()), 1;
    uint32_t (*abi)(void) = (uint32_t (*)(void))take(library, "fm_abi");
    size_t (*need)(uint32_t) = (size_t (*)(uint32_t))take(library, "fm_workspace");
    size_t (*weigh)(void) = (size_t (*)(void))take(library, "fm_weights");
    int (*call)(const fm_bound *) = (int (*)(const fm_bound *))take(library, "fm_call");
    if (abi() != FM_ABI) return fprintf(stderr, "the model is of version %u\n", abi()), 1;

    fm_bound bound = {.size = sizeof bound, .rows = (uint32_t)atoi(argv[2])};
    size_t bytes = 0;
    if (weigh()) {
        snprintf(path, sizeof path, "%s/weights", argv[1]);
        bound.weights = map(path, &bytes);
        if (!bound.weights || bytes != weigh()) return fprintf(stderr, "%s has a wrong size\n", path), 1;
    }
    size_t space = need(bound.rows);
    bound.workspace = aligned_alloc(FM_ALIGN, (space + FM_ALIGN) / FM_ALIGN * FM_ALIGN);

    const void *inputs[MOST];
    void *outputs[MOST];
    const char *names[MOST];
    size_t sizes[MOST];
    int at = 3, in = 0, out = 0;
    for (; at < argc && strcmp(argv[at], "--") && in < MOST; at++)
        if (!(inputs[in++] = map(argv[at], &bytes))) return 1;
    for (at++; at + 1 < argc && out < MOST; at += 2, out++) {
        names[out] = argv[at];
        sizes[out] = strtoull(argv[at + 1], NULL, 10);
        outputs[out] = calloc(1, sizes[out] + 1);
    }
    bound.inputs = inputs;
    bound.outputs = outputs;
    int code = call(&bound);
    if (code) return fprintf(stderr, "the model returned %d\n", code), 1;
    for (int k = 0; k < out; k++) {
        FILE *file = fopen(names[k], "wb");
        if (!file || fwrite(outputs[k], 1, sizes[k], file) != sizes[k] || fclose(file)) return perror(names[k]), 1;
    }
    return 0;
}
