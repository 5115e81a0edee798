/* The arithmetic, for LANES frames at once: included once for each number of lanes.

   A lane is a frame, so no operation mixes lanes and no bit depends on their number. README.md
   states the order of every operation, and twin.py follows it, too. */

#define GLUE_(name, lanes) name##_##lanes
#define GLUE(name, lanes) GLUE_(name, lanes)
#define FN(name) GLUE(name, LANES)
#define V FN(vector)
#define U FN(unsigned)
#define I FN(integer)
#define Z FN(complex)
#define INLINE static inline __attribute__((always_inline))

typedef float V __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t U __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t I __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef struct {
    V re, im;
} Z;

#define ADD FN(add)
#define SUB FN(sub)
#define TIMES FN(times)
INLINE Z ADD(Z a, Z b) { return (Z){a.re + b.re, a.im + b.im}; }
INLINE Z SUB(Z a, Z b) { return (Z){a.re - b.re, a.im - b.im}; }
INLINE Z TIMES(Z a, const float *root) {
    return (Z){a.re * root[0] - a.im * root[1], a.re * root[1] + a.im * root[0]};
}
INLINE Z FN(turned)(V a, const float *root) { return (Z){a * root[0], a * root[1]}; }

/* ---- Transforms of few points, in registers ------------------------------------------------- */

INLINE void FN(dft2)(const Z *x, Z *y) {
    Z a = x[0], b = x[1];
    y[0] = ADD(a, b);
    y[1] = SUB(a, b);
}

INLINE void FN(dft4)(const Z *x, Z *y) {
    Z a = ADD(x[0], x[2]), b = SUB(x[0], x[2]), c = ADD(x[1], x[3]), d = SUB(x[1], x[3]);
    y[0] = ADD(a, c);
    y[1] = (Z){b.re + d.im, b.im - d.re};
    y[2] = SUB(a, c);
    y[3] = (Z){b.re - d.im, b.im + d.re};
}

INLINE void FN(dft8)(const Z *x, Z *y) {
    Z a[4], b[4], even[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        a[j] = ADD(x[j], x[j + 4]);
        b[j] = SUB(x[j], x[j + 4]);
    }
    FN(dft4)(a, even);
    Z one = {(b[1].re + b[1].im) * ROOT_HALF, (b[1].im - b[1].re) * ROOT_HALF};
    V u = (b[3].im - b[3].re) * ROOT_HALF, v = (b[3].re + b[3].im) * ROOT_HALF;
    Z p = {b[0].re + b[2].im, b[0].im - b[2].re}, q = {b[0].re - b[2].im, b[0].im + b[2].re};
    Z c = {one.re + u, one.im - v}, d = {one.re - u, one.im + v};
    y[0] = even[0];
    y[1] = ADD(p, c);
    y[2] = even[1];
    y[3] = (Z){q.re + d.im, q.im - d.re};
    y[4] = even[2];
    y[5] = SUB(p, c);
    y[6] = even[3];
    y[7] = (Z){q.re - d.im, q.im + d.re};
}

/* Of an odd number of points, by plain sums over pairs; `circle` has `n` cosines, then `n` sines,
   and `pairs` room for `n`. */
INLINE void FN(odd)(int n, const Z *x, Z *y, const float *circle, Z *pairs) {
    int half = n / 2;
    const float *cosine = circle, *sine = circle + n;
    Z *sums = pairs, *differences = pairs + half, first = x[0], total = first;
#pragma GCC unroll 2
    for (int j = 1; j <= half; j++) {
        sums[j - 1] = ADD(x[j], x[n - j]);
        differences[j - 1] = SUB(x[n - j], x[j]);
        total = ADD(total, sums[j - 1]);
    }
#pragma GCC unroll 2
    for (int k = 1; k <= half; k++) {
        Z a = first, b = {differences[0].re * sine[k], differences[0].im * sine[k]};
        a.re += sums[0].re * cosine[k], a.im += sums[0].im * cosine[k];
        int turn = k;
#pragma GCC unroll 2
        for (int j = 2; j <= half; j++) {
            turn = turn + k >= n ? turn + k - n : turn + k;
            a.re += sums[j - 1].re * cosine[turn], a.im += sums[j - 1].im * cosine[turn];
            b.re += differences[j - 1].re * sine[turn], b.im += differences[j - 1].im * sine[turn];
        }
        y[k] = (Z){a.re - b.im, a.im + b.re};
        y[n - k] = (Z){a.re + b.im, a.im - b.re};
    }
    y[0] = total;
}

/* Of real values. `real` takes the bins 0 and n / 2, `y` one of every other pair k and n - k. */

INLINE void FN(real4)(V x0, V x1, V x2, V x3, V *real, Z *y) {
    V s = x0 + x2, t = x1 + x3;
    real[0] = s + t;
    real[1] = s - t;
    y[0] = (Z){x0 - x2, x3 - x1};
}

INLINE void FN(real8)(const V *x, int stride, V *real, Z *y) {
#define X(j) x[(j) * stride]
    V a = X(0) + X(4), b = X(0) - X(4), c = X(1) + X(5), d = X(1) - X(5);
    V e = X(2) + X(6), f = X(6) - X(2), g = X(3) + X(7), h = X(7) - X(3);
#undef X
    V s = a + e, t = c + g, m = (d + h) * ROOT_HALF, n = (h - d) * ROOT_HALF;
    real[0] = s + t;
    real[1] = s - t;
    y[0] = (Z){b + m, f + n};
    y[1] = (Z){a - e, g - c};
    y[2] = (Z){b - m, n - f};
}

/* Bins 0, 8 | 4, 1, 9, 2, 10, 3, 11. `roots` are those of 32 points. */
INLINE void FN(real16)(const V *x, V *real, Z *y, const float (*roots)[2]) {
    V ends[2][2];
    Z z[2][3];
#pragma GCC unroll 2
    for (int t = 0; t < 2; t++) FN(real8)(x + t, 2, ends[t], z[t]);
    real[0] = ends[0][0] + ends[1][0];
    real[1] = ends[0][0] - ends[1][0];
    y[0] = ADD(((Z){ends[0][1], (V){0}}), FN(turned)(ends[1][1], roots[8]));
#pragma GCC unroll 3
    for (int k = 1; k < 4; k++) {
        Z pair[2] = {z[0][k - 1], TIMES(z[1][k - 1], roots[2 * k])};
        FN(dft2)(pair, y + 2 * k - 1);
    }
}

/* Bins 0, 16 | 8, 4, 12, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27. */
INLINE void FN(real32)(const V *x, V *real, Z *y, const float (*roots)[2]) {
    V ends[4][2];
    Z z[4][3];
#pragma GCC unroll 4
    for (int t = 0; t < 4; t++) FN(real8)(x + t, 4, ends[t], z[t]);
    FN(real4)(ends[0][0], ends[1][0], ends[2][0], ends[3][0], real, y);
    Z last[4] = {{ends[0][1], (V){0}}}, four[4];
#pragma GCC unroll 3
    for (int t = 1; t < 4; t++) last[t] = FN(turned)(ends[t][1], roots[4 * t]);
    FN(dft4)(last, four);
    y[1] = four[0];
    y[2] = four[1];
#pragma GCC unroll 3
    for (int k = 1; k < 4; k++) {
        four[0] = z[0][k - 1];
#pragma GCC unroll 3
        for (int t = 1; t < 4; t++) four[t] = TIMES(z[t][k - 1], roots[k * t]);
        FN(dft4)(four, y + 4 * k - 1);
    }
}

/* Of an odd number of real values; `pairs` has room for `n`. */
INLINE void FN(real_odd)(int n, const V *x, V *real, Z *y, const float *circle, V *pairs) {
    int half = n / 2;
    const float *cosine = circle, *sine = circle + n;
    V *sums = pairs, *differences = pairs + half, total = x[0];
    for (int j = 1; j <= half; j++) {
        sums[j - 1] = x[j] + x[n - j];
        differences[j - 1] = x[n - j] - x[j];
        total += sums[j - 1];
    }
    for (int k = 1; k <= half; k++) {
        Z a = {x[0] + sums[0] * cosine[k], differences[0] * sine[k]};
        int turn = k;
        for (int j = 2; j <= half; j++) {
            turn = turn + k >= n ? turn + k - n : turn + k;
            a.re += sums[j - 1] * cosine[turn];
            a.im += differences[j - 1] * sine[turn];
        }
        y[k - 1] = a;
    }
    real[0] = total;
}

/* ---- A complex transform of any length, in memory (Stockham) --------------------------------- */

INLINE void FN(stage)(int radix, int points, int stride, const Z *x, Z *y, const float *turns,
                      const float *circle, Z *pairs) {
    int m = points / radix;
    Z in[8], out[8], *xs = in, *ys = out;
    if (radix > 8) xs = pairs + radix, ys = xs + radix;
    for (int p = 0; p < m; p++) {
        for (int q = 0; q < stride; q++) {
            const Z *from = x + q + stride * p;
            Z *to = y + q + stride * radix * p;
            for (int j = 0; j < radix; j++) xs[j] = from[stride * m * j];
            switch (radix) {
                case 2: FN(dft2)(xs, ys); break;
                case 4: FN(dft4)(xs, ys); break;
                case 8: FN(dft8)(xs, ys); break;
                default: FN(odd)(radix, xs, ys, circle, pairs);
            }
            to[0] = ys[0];
            for (int k = 1; k < radix; k++)
                to[stride * k] = p ? TIMES(ys[k], turns + 2 * (k - 1)) : ys[k];
        }
        turns += 2 * (radix - 1);
    }
}

#define STAGE(radix)                                                                             \
    static void FN(stage##radix)(int points, int stride, const Z *x, Z *y, const float *turns,   \
                                 const float *circle) {                                          \
        Z pairs[radix];                                                                          \
        FN(stage)(radix, points, stride, x, y, turns, circle, pairs);                            \
    }
STAGE(2)
STAGE(3)
STAGE(4)
STAGE(5)
STAGE(8)
#undef STAGE

/* From `x` by way of `spare[0]` and `spare[1]`. Returns which of the three has the result. */
static Z *FN(fft)(const Fft *fft, Z *x, Z *const *spare, Z *pairs) {
    int points = fft->points, stride = 1;
    const float *turns = fft->turns, *circles = fft->circles;
    for (int i = 0; i < fft->n_stages; i++) {
        int radix = fft->radices[i];
        Z *y = spare[i % 2];
        switch (radix) {
            case 2: FN(stage2)(points, stride, x, y, turns, NULL); break;
            case 3: FN(stage3)(points, stride, x, y, turns, circles); break;
            case 4: FN(stage4)(points, stride, x, y, turns, NULL); break;
            case 5: FN(stage5)(points, stride, x, y, turns, circles); break;
            case 8: FN(stage8)(points, stride, x, y, turns, NULL); break;
            default: FN(stage)(radix, points, stride, x, y, turns, circles, pairs);
        }
        turns += 2 * (radix - 1) * (points / radix);
        if (radix % 2) circles += 2 * radix;
        points /= radix;
        stride *= radix;
        x = y;
    }
    return x;
}

/* ---- From samples to rows of features --------------------------------------------------------- */

/* Four by four values, from rows at `a` to `d` to rows `pitch` apart. */
INLINE void FN(transpose4)(const float *a_, const float *b_, const float *c_, const float *d_, float *y,
                           ptrdiff_t pitch) {
    Four a = *(const Four *)a_, b = *(const Four *)b_, c = *(const Four *)c_, d = *(const Four *)d_;
    Four ab = SHUFFLE(a, b, 0, 4, 1, 5), AB = SHUFFLE(a, b, 2, 6, 3, 7);
    Four cd = SHUFFLE(c, d, 0, 4, 1, 5), CD = SHUFFLE(c, d, 2, 6, 3, 7);
    *(Four *)y = SHUFFLE(ab, cd, 0, 1, 4, 5);
    *(Four *)(y + pitch) = SHUFFLE(ab, cd, 2, 3, 6, 7);
    *(Four *)(y + 2 * pitch) = SHUFFLE(AB, CD, 0, 1, 4, 5);
    *(Four *)(y + 3 * pitch) = SHUFFLE(AB, CD, 2, 3, 6, 7);
}

/* y[r][c] = x[c * hop + r], and 0 where x, of `size` samples, has ended. Rows of y have room for
   up to three columns more, which may be written. */
static void FN(transpose)(const float *x, ptrdiff_t size, int rows, int columns, ptrdiff_t hop,
                          float *y, ptrdiff_t pitch) {
    for (int c = 0; c < columns; c += 4) {
        /* Rows that all four columns have. */
        ptrdiff_t whole = size - (c + 3) * hop;
        int end = whole < rows ? (whole > 0 ? (int)whole : 0) : rows, r = 0;
        for (; r + 4 <= end; r += 4) {
            const float *from = x + c * hop + r;
            FN(transpose4)(from, from + hop, from + 2 * hop, from + 3 * hop, y + r * pitch + c, pitch);
        }
        for (; r < rows; r++)
            for (int j = c; j < c + 4 && j < columns; j++)
                y[r * pitch + j] = j * hop + r < size ? x[j * hop + r] : 0.0f;
    }
}

/* y[r][lane] = at[lane][r]; lanes above `frames` repeat the last. */
static void FN(gather)(const float *const *at, int frames, int rows, V *y) {
    for (int l = 0; l < LANES; l += 4) {
        const float *from[4];
        for (int j = 0; j < 4; j++) from[j] = at[l + j < frames ? l + j : frames - 1];
        int r = 0;
        for (; r + 4 <= rows; r += 4)
            FN(transpose4)(from[0] + r, from[1] + r, from[2] + r, from[3] + r, (float *)(y + r) + l,
                           LANES);
        for (; r < rows; r++)
            for (int j = 0; j < 4; j++) ((float *)(y + r))[l + j] = from[j][r];
    }
}

/* Each frame less its mean, then pre-emphasised, as `Framing` has it: to `y`, by way of `sums`. */
static void FN(condition)(const Plan *plan, const float *x, const int32_t *offset, V *y, V *sums) {
    int n = plan->length;
    for (int i = 0; i < n; i++) sums[i] = *(const V *)(x + offset[i]);
    if (plan->remove_dc) { /* of small differences of large samples more digits stay */
        V first = sums[0];
        for (int i = 0; i < n; i++) sums[i] -= first;
    }
    if (plan->preemphasis != 0.0f) {
        y[0] = sums[0] * plan->kept;
        for (int i = 1; i < n; i++) y[i] = (sums[i] - sums[i - 1]) + sums[i - 1] * plan->kept;
    } else
        memcpy(y, sums, n * sizeof(V));
    if (!plan->remove_dc) return;
    while (n > 1) {
        int half = (n + 1) / 2;
        for (int i = half; i < n; i++) sums[i - half] += sums[i];
        n = half;
    }
    V mean = sums[0] * plan->mean_weight;
    for (int i = 0; i < plan->length; i++) y[i] -= mean;
}

/* Transforms of the `a` samples at every `b`th place, turned: `columns` rows of `b` values. */
INLINE void FN(first_pass)(const Plan *plan, int a, const float *x, const int32_t *offset,
                           Z *spectrum, V *room) {
    int b = plan->b, columns = plan->columns, row = b + 1, reals = a % 2 ? 1 : 2;
    const float *window = plan->window, *turns = plan->turns;
    V in[32], real[2] = {{0}}, *values = in;
    Z out[16], *y = out;
    if (a > 32) values = room, y = (Z *)(room + a);
    for (int t = 0; t < b; t++) {
#pragma GCC unroll 32
        for (int j = 0; j < a; j++) values[j] = *(const V *)(x + offset[j * b + t]) * window[j * b + t];
        switch (a) {
            case 2: real[0] = values[0] + values[1], real[1] = values[0] - values[1]; break;
            case 4: FN(real4)(values[0], values[1], values[2], values[3], real, y); break;
            case 8: FN(real8)(values, 1, real, y); break;
            case 16: FN(real16)(values, real, y, plan->roots); break;
            case 32: FN(real32)(values, real, y, plan->roots); break;
            case 1: real[0] = values[0]; break;
            default: FN(real_odd)(a, values, real, y, plan->circle, room + 2 * a);
        }
        Z *to = spectrum + t;
        to[0] = (Z){real[0], (V){0}};
        if (reals == 2) to[row] = t ? FN(turned)(real[1], turns) : (Z){real[1], (V){0}};
#pragma GCC unroll 15
        for (int c = reals; c < columns; c++)
            to[c * row] = t ? TIMES(y[c - reals], turns + 2 * (c - 1)) : y[c - reals];
        if (t) turns += 2 * (columns - 1);
    }
}

#define FIRST(a)                                                                                 \
    static void FN(first##a)(const Plan *plan, const float *x, const int32_t *offset, Z *y) {    \
        FN(first_pass)(plan, a, x, offset, y, NULL);                                             \
    }
FIRST(2)
FIRST(4)
FIRST(8)
FIRST(16)
FIRST(32)
#undef FIRST

INLINE V FN(root)(V x) {
    V y;
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) y[i] = __builtin_sqrtf(x[i]);
    return y;
}

/* Transforms of the columns, and what is asked for of each bin: one value, or two. */
INLINE void FN(second_pass)(const Plan *plan, int output, Z *spectrum, Z *const *spare, Z *pairs,
                            V *bins) {
    int a = plan->a, b = plan->b, n = plan->n_fft;
    for (int c = 0; c < plan->columns; c++) {
        const Z *x = FN(fft)(&plan->second, spectrum + c * (b + 1), spare, pairs);
        int real = c < (a % 2 ? 1 : 2);
        for (int i = 0, k = plan->column[c]; i < b; i++, k += a) {
            int mirrored = 2 * k > n;
            if (mirrored && real) break; /* its conjugate was there already */
            int bin = mirrored ? n - k : k;
            V re = x[i].re, im = x[i].im;
            if (bin == 0 || 2 * bin == n) im = (V){0};
            if (output == COMPLEX) {
                bins[2 * bin] = re;
                bins[2 * bin + 1] = mirrored ? -im : im;
            } else {
                V power = re * re + im * im;
                bins[bin] = output == MAGNITUDE ? FN(root)(power) : power;
            }
        }
    }
}

/* parts[i % 4] += x[i] w[i] for `n` values. */
INLINE void FN(add_up)(const V *x, const float *w, int n, V *parts) {
    V s0 = parts[0], s1 = parts[1], s2 = parts[2], s3 = parts[3];
    for (; n >= 4; n -= 4, x += 4, w += 4) {
        s0 += x[0] * w[0];
        s1 += x[1] * w[1];
        s2 += x[2] * w[2];
        s3 += x[3] * w[3];
    }
    if (n > 0) s0 += x[0] * w[0];
    if (n > 1) s1 += x[1] * w[1];
    if (n > 2) s2 += x[2] * w[2];
    parts[0] = s0, parts[1] = s1, parts[2] = s2, parts[3] = s3;
}

/* Two sums: of x[i] w[i], and of x[i + shift] v[i]. Each value of x is loaded once for both. `shift`
   is a constant from 0 to 4, and both have at least 8 values. */
INLINE void FN(two_filters)(const V *x, const float *w, int n, const float *v, int m, int shift, V *y) {
    V s[4] = {{0}}, t[4] = {{0}}; /* of t, part 0 is at `shift` */
    if (shift) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) s[i] += x[i] * w[i];
#pragma GCC unroll 4
        for (int i = shift; i < 4; i++) t[i] += x[i] * v[i - shift];
        x += 4, w += 4, v += 4 - shift, n -= 4, m -= 4 - shift;
    }
    V s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3], t0 = t[0], t1 = t[1], t2 = t[2], t3 = t[3];
    for (; n >= 4 && m >= 4; x += 4, w += 4, v += 4, n -= 4, m -= 4) {
        V x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3];
        s0 += x0 * w[0], s1 += x1 * w[1], s2 += x2 * w[2], s3 += x3 * w[3];
        t0 += x0 * v[0], t1 += x1 * v[1], t2 += x2 * v[2], t3 += x3 * v[3];
    }
    s[0] = s0, s[1] = s1, s[2] = s2, s[3] = s3, t[0] = t0, t[1] = t1, t[2] = t2, t[3] = t3;
    FN(add_up)(x, w, n, s);
    FN(add_up)(x, v, m, t);
    y[0] = (s[0] + s[1]) + (s[2] + s[3]);
    y[1] = (t[shift & 3] + t[(shift + 1) & 3]) + (t[(shift + 2) & 3] + t[(shift + 3) & 3]);
}

/* y[m] = the sum of x[i] times filter m, in four parts. */
static void FN(bank)(const Plan *plan, const V *x, V *y) {
    const float *w = plan->weights;
    for (int m = 0; m < plan->n_filters; m++) {
        int n = plan->filter_length[m], other = 0, shift = -1;
        if (m + 1 < plan->n_filters) {
            other = plan->filter_length[m + 1];
            if (n >= 8 && other >= 8) shift = plan->start[m + 1] - plan->start[m];
        }
        const V *p = x + plan->start[m];
        switch (shift) {
            case 0: FN(two_filters)(p, w, n, w + n, other, 0, y + m); break;
            case 1: FN(two_filters)(p, w, n, w + n, other, 1, y + m); break;
            case 2: FN(two_filters)(p, w, n, w + n, other, 2, y + m); break;
            case 3: FN(two_filters)(p, w, n, w + n, other, 3, y + m); break;
            case 4: FN(two_filters)(p, w, n, w + n, other, 4, y + m); break;
            default: {
                V s[4] = {{0}};
                FN(add_up)(p, w, n, s);
                y[m] = (s[0] + s[1]) + (s[2] + s[3]);
                w += n;
                continue;
            }
        }
        m++;
        w += n + other;
    }
}

INLINE V FN(select)(I mask, V a, V b) { return (V)(((U)a & (U)mask) | ((U)b & ~(U)mask)); }

/* The logarithm of `dsp.compress`, in place. */
static void FN(log)(const Log *log, int n, V *x) {
    const V floor = (V){0} + log->floor, infinity = (V){0} + __builtin_inff();
    for (int i = 0; i < n; i++) {
        V given = x[i] * log->gain;
        V v = given + floor;
        if (!log->add) v = FN(select)(given < floor, floor, given);
        U exponent = ((U)v - 0x3F3504F3u) & 0xFF800000u;
        V m = (V)((U)v - exponent), s = (m - 1.0f) / (m + 1.0f), z = s * s;
        V y = z * log->series[3];
        y = (y + log->series[2]) * z;
        y = (y + log->series[1]) * z;
        y = (y + log->series[0]) * s;
        y += __builtin_convertvector((I)exponent, V) * log->ln2;
        y = FN(select)(v < infinity, y, given); /* infinity and NaN stay */
        x[i] = (y + log->offset) * log->factor;
    }
}

/* Rows of `n` values for the first `frames` lanes, `stride` apart. Processors differ in what NaN
   they make. */
INLINE void FN(write)(V *x, int n, int frames, float *out, ptrdiff_t stride) {
    for (int m = 0; m < n; m++) x[m] = FN(select)(x[m] == x[m], x[m], (V){0} + __builtin_nanf(""));
    int whole = n / 4 * 4, l = 0;
    for (; l + 4 <= frames; l += 4)
        for (int m = 0; m < whole; m += 4) {
            const float *from = (const float *)(x + m) + l;
            FN(transpose4)(from, from + LANES, from + 2 * LANES, from + 3 * LANES, out + l * stride + m,
                           stride);
        }
    for (int i = 0; i < frames; i++)
        for (int m = i < l ? whole : 0; m < n; m++)
            out[i * stride + m] = ((const float *)(x + m))[i];
}

/* ---- Bands: filters in frequency, whose outputs are few --------------------------------------- */

/* A quarter of the samples of a spectrum under the low-pass: an inverse real transform of n / 4
   points, two of which are one point of a complex one. */
static void FN(decimate)(const Plan *plan, const Z *bins, Z *const *room, Z *pairs, int frames,
                         float *out) {
    const Bands *bands = &plan->bands;
    const float *lowpass = bands->lowpass, *turns = bands->low_turns;
    int half = bands->low.points;
    for (int k = 0; k < half; k++) {
        Z a = {bins[k].re * lowpass[k], bins[k].im * lowpass[k]}, mirror = bins[half - k];
        Z b = {mirror.re * lowpass[half - k], -mirror.im * lowpass[half - k]};
        if (k == 0) b.im = (V){0}; /* of half the lower rate only the real part counts */
        Z sum = ADD(a, b), odd = TIMES(SUB(a, b), turns + 2 * k);
        room[0][k] = (Z){sum.im + odd.re, sum.re - odd.im}; /* parts change places: an inverse */
    }
    Z *z = FN(fft)(&bands->low, room[0], room + 1, pairs);
    V *y = (V *)z;
    for (int k = 0; k < half; k++) z[k] = (Z){z[k].im, z[k].re};
    FN(write)(y + bands->low_lead, bands->n_low, frames, out, bands->n_low);
}

/* Each filter times the spectrum, aliased to the rate of its outputs: `n_rows` rows a frame. */
INLINE void FN(filter_bands)(const Plan *plan, int output, const Z *bins, Z *spectrum, Z *const *room,
                             Z *pairs, V *rows, int frames, float *out) {
    const Bands *bands = &plan->bands;
    int n = plan->n_fft, points = bands->inverse.points, parts = output == COMPLEX ? 2 : 1, q = 0;
    ptrdiff_t width = (ptrdiff_t)plan->n_filters * parts;
    for (int k = bands->lowest; k < bands->highest; k++) {
        int mirrored = k < 0 || 2 * k > n, bin = k < 0 ? -k : mirrored ? n - k : k;
        Z x = TIMES(bins[bin], bands->turns + 2 * bin);
        spectrum[k - bands->lowest] = mirrored ? (Z){x.re, -x.im} : x;
    }
    const float *w = plan->weights;
    for (int f = 0; f < plan->n_filters; f++) {
        int left = plan->filter_length[f], at = (bands->lowest + plan->start[f]) % points;
        const Z *x = spectrum + plan->start[f];
        for (int i = 0; i < points; i++) room[0][i] = (Z){(V){0}, (V){0}};
        for (at = at < 0 ? at + points : at; left > 0; at = 0) {
            int some = left < points - at ? left : points - at;
            Z *sum = room[0] + at;
            for (int i = 0; i < some; i++) { /* parts change places: an inverse transform */
                sum[i].re += x[i].im * w[i];
                sum[i].im += x[i].re * w[i];
            }
            x += some, w += some, left -= some;
        }
        const Z *z = FN(fft)(&bands->inverse, room[0], room + 1, pairs) + bands->head;
        for (int p = 0; p < bands->n_rows; p++) {
            V re = z[p].im, im = z[p].re, *row = rows + p * 4 * parts + q * parts;
            if (output == COMPLEX) {
                Z turned = TIMES(((Z){re, im}), bands->phases + 2 * f);
                row[0] = turned.re;
                row[1] = turned.im;
            } else {
                V power = re * re + im * im;
                row[0] = output == MAGNITUDE ? FN(root)(power) : power;
            }
        }
        if (++q == 4 || f + 1 == plan->n_filters) {
            float *to = out + (ptrdiff_t)(f + 1 - q) * parts;
            for (int p = 0; p < bands->n_rows; p++)
                FN(write)(rows + p * 4 * parts, q * parts, frames, to + p * width,
                          bands->n_rows * width);
            q = 0;
        }
    }
}

/* Up to LANES frames, which begin `at` these places: rows of features, and those of a lower rate,
   each unless it is NULL. If all are of one signal, `size` of its samples are left from the first
   on; otherwise it is 0. */
static void FN(group)(const Plan *plan, const float *const *at, ptrdiff_t size, int frames,
                      void *scratch, float *out, float *lower) {
    const Layout *layout = &plan->layout[VARIANT];
    V *zero = scratch, *own = zero + 1, *room = own + 2 * plan->length;
    Z *spectrum = (Z *)(room + 4 * plan->a);
    Z *spare[2] = {spectrum + plan->columns * (plan->b + 1), NULL};
    spare[1] = spare[0] + plan->b + 1;
    Z *pairs = spare[1] + plan->b + 1;
    V *bins = (V *)(pairs + 3 * (plan->largest + 1));
    V *filtered = bins + 2 * (plan->n_fft / 2 + 1);
    Z *band = (Z *)(filtered + plan->n_filters);
    float *hops = (float *)band + layout->band_size;

    /* Samples are at `offset` from `zero`: that of the padding behind a frame is 0. */
    const float *from = (const float *)zero;
    const int32_t *offset = layout->own_offset;
    *zero = (V){0};
    if (size) {
        const float *x = at[0];
        FN(transpose)(x, size, plan->rows, layout->columns, plan->hop_length, hops, layout->pitch);
        ptrdiff_t next = (ptrdiff_t)layout->columns * plan->hop_length;
        ptrdiff_t end = next + (ptrdiff_t)LANES * plan->hop_length;
        for (ptrdiff_t i = next; i < end && i < size; i += 16) __builtin_prefetch(x + i);
        offset = layout->offset;
    } else
        FN(gather)(at, frames, plan->length, own);
    if (plan->conditioned) {
        FN(condition)(plan, from, offset, own, own + plan->length);
        offset = layout->own_offset;
    }
    if (plan->output == SAMPLES)
        for (int i = 0; i < plan->n_fft; i++)
            bins[i] = *(const V *)(from + offset[i]) * plan->window[i];
    else
        switch (plan->a) {
            case 2: FN(first2)(plan, from, offset, spectrum); break;
            case 4: FN(first4)(plan, from, offset, spectrum); break;
            case 8: FN(first8)(plan, from, offset, spectrum); break;
            case 16: FN(first16)(plan, from, offset, spectrum); break;
            case 32: FN(first32)(plan, from, offset, spectrum); break;
            default: FN(first_pass)(plan, plan->a, from, offset, spectrum, room);
        }
    switch (plan->bands.used ? COMPLEX : plan->output) {
        case SAMPLES: break;
        case COMPLEX: FN(second_pass)(plan, COMPLEX, spectrum, spare, pairs, bins); break;
        case POWER: FN(second_pass)(plan, POWER, spectrum, spare, pairs, bins); break;
        default: FN(second_pass)(plan, MAGNITUDE, spectrum, spare, pairs, bins);
    }
    if (plan->bands.used) {
        const Bands *bands = &plan->bands;
        Z *const rooms[3] = {band, band + bands->room, band + 2 * bands->room};
        Z *whole = band + 3 * bands->room;
        V *rows = (V *)(whole + bands->highest - bands->lowest);
        const Z *z = (const Z *)bins;
        if (lower) FN(decimate)(plan, z, rooms, pairs, frames, lower);
#define BANDS(output) FN(filter_bands)(plan, output, z, whole, rooms, pairs, rows, frames, out)
        if (!out) return;
        switch (plan->output) {
            case COMPLEX: BANDS(COMPLEX); break;
            case POWER: BANDS(POWER); break;
            default: BANDS(MAGNITUDE);
        }
#undef BANDS
        return;
    }
    if (plan->n_filters) {
        FN(bank)(plan, bins, filtered);
        bins = filtered;
    }
    if (plan->log.used) FN(log)(&plan->log, plan->width, bins);
    FN(write)(bins, plan->width, frames, out, plan->width);
}

/* Where `group` has what in its scratch memory; false without memory for these tables. */
static int FN(lay_out)(Plan *plan) {
    Layout *layout = &plan->layout[VARIANT];
    const Bands *bands = &plan->bands;
    int columns = (plan->length - 1) / plan->hop_length + LANES;
    layout->columns = columns;
    layout->pitch = (columns + 3) / 4 * 4;
    if (layout->pitch % 16 == 0) layout->pitch += 4; /* rows would crowd into few sets of a cache */
    ptrdiff_t vectors = 1 + 2 * (ptrdiff_t)plan->length + 4 * (ptrdiff_t)plan->a;
    vectors += 2 * ((ptrdiff_t)plan->columns + 2) * (plan->b + 1);
    vectors += 6 * ((ptrdiff_t)plan->largest + 1);
    vectors += 2 * ((ptrdiff_t)plan->n_fft / 2 + 1) + plan->n_filters;
    ptrdiff_t extra = 6 * (ptrdiff_t)bands->room + 2 * ((ptrdiff_t)bands->highest - bands->lowest);
    extra += 8 * (ptrdiff_t)bands->n_rows;
    layout->band_size = extra * LANES;
    ptrdiff_t hops = (vectors + extra) * LANES, end = hops + (ptrdiff_t)plan->rows * layout->pitch;
    if (end > INT32_MAX) return 0;
    layout->scratch_size = end * sizeof(float);
    layout->offset = PyMem_Calloc(plan->n_fft, sizeof(int32_t));
    layout->own_offset = PyMem_Calloc(plan->n_fft, sizeof(int32_t));
    if (!layout->offset || !layout->own_offset) return 0;
    for (int i = 0; i < plan->length; i++) {
        int row = i % plan->hop_length, column = i / plan->hop_length;
        layout->offset[i] = (int32_t)(hops + (ptrdiff_t)row * layout->pitch + column);
        layout->own_offset[i] = (1 + i) * LANES;
    }
    layout->group = FN(group);
    return 1;
}

#undef V
#undef U
#undef I
#undef Z
#undef ADD
#undef SUB
#undef TIMES
#undef INLINE
#undef FN
#undef GLUE
#undef GLUE_
