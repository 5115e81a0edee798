/* The kernel without Python, to run where there is none: reads programs and signals from a file, and
   writes the rows of all frames to another. Of Python's functions only those for memory are used. */

#include "kernel.c"
#include <stdio.h>

void *PyMem_Calloc(size_t n, size_t size) { return calloc(n + 1, size); }
void *PyMem_Malloc(size_t size) { return malloc(size); }

static void *read_array(FILE *file, Py_ssize_t *size) {
    int64_t n;
    if (fread(&n, sizeof n, 1, file) != 1) exit(2);
    void *array = malloc(n + 1);
    if (fread(array, 1, n, file) != (size_t)n) exit(2);
    *size = n;
    return array;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
    int64_t programs;
    if (!in || !out || fread(&programs, sizeof programs, 1, in) != 1) return 2;
    while (programs--) {
        Py_buffer views[TABLES] = {{0}}, signal = {0};
        for (int i = 0; i < TABLES; i++) views[i].buf = read_array(in, &views[i].len);
        signal.buf = read_array(in, &signal.len);
        Plan plan = {.n_fft = 0};
        if (!fill(&plan, views, views[INTS].buf, views[FLOATS].buf)) return 2;
        ptrdiff_t count = frames_of(&plan, &signal);
        size_t scratch = plan.layout[plan.widest].scratch_size;
        float *rows = malloc(4 * count * plan.width), *lower = NULL;
        if (plan.bands.n_low) lower = malloc(4 * count * plan.bands.n_low);
        of_signals(&plan, &signal, count, aligned_alloc(64, (scratch + 127) / 64 * 64), rows, lower);
        fwrite(rows, 4 * plan.width, count, out);
        fwrite(lower, 4 * plan.bands.n_low, lower ? count : 0, out);
    }
    return fclose(out);
}
