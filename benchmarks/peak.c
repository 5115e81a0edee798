/* Single additions and multiplications a second, by independent ones on the widest vectors, in one
   thread: what no kernel without fused operations can exceed. Prints operations a second. */

#include <stdio.h>
#include <time.h>

#ifdef __AVX512F__
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float Vector __attribute__((vector_size(4 * LANES)));

/* One addition and one multiplication of each of six chains, in registers. */
#define STEP(n) s##n += step, p##n *= factor; __asm__ volatile("" : "+v"(s##n), "+v"(p##n));
#define CHAIN(n) Vector s##n = (Vector){0} + n, p##n = (Vector){0} + n;

int main(void) {
    const long rounds = 20000000;
    double best = 0;
    for (int run = 0; run < 5; run++) {
        Vector step = (Vector){0} + 1e-9f, factor = (Vector){0} + 0.9999999f;
        CHAIN(1) CHAIN(2) CHAIN(3) CHAIN(4) CHAIN(5) CHAIN(6)
        clock_t started = clock();
        for (long n = 0; n < rounds; n++) { STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) }
        double seconds = (double)(clock() - started) / CLOCKS_PER_SEC;
        double rate = 2.0 * 6 * LANES * rounds / seconds;
        if (rate > best) best = rate;
    }
    printf("%.0f\n", best);
    return 0;
}
