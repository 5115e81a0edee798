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
        enum { N = 13 };
        Py_buffer views[N] = {{0}};
        for (int i = 0; i < N; i++) views[i].buf = read_array(in, &views[i].len);
        Py_ssize_t size;
        float *x = read_array(in, &size);
        Plan plan = {.n_fft = 0};
        if (!fill(&plan, views, views[N - 2].buf, views[N - 1].buf)) return 2;
        ptrdiff_t samples = size / 4;
        ptrdiff_t count = 1 + (samples - plan.length) / plan.hop_length;
        size_t scratch = plan.layout[plan.widest].scratch_size;
        float *rows = malloc(4 * count * plan.width);
        of_signal(&plan, x, samples, aligned_alloc(64, (scratch + 127) / 64 * 64), rows);
        fwrite(rows, 4 * plan.width, count, out);
    }
    return fclose(out);
}
