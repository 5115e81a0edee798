/* Spectra of frames, and what features are made of them: frames are the lanes of SIMD.

   This file checks what comes from Python, keeps a plan's tables, and chooses the number of lanes;
   lanes.h has the arithmetic. */

#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 2 /* that of native.py */
#define ROOT_HALF 0.70710678118654752440f
#define MAX_STAGES 32
#define LARGEST (1 << 22) /* n_fft, and other sizes: products of two fit into 64 bits */

typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
#define SHUFFLE __builtin_shufflevector

enum { COMPLEX, POWER, MAGNITUDE, SAMPLES, OUTPUTS };

typedef struct Plan Plan;

typedef struct {
    int columns, pitch; /* of the hops, transposed */
    int32_t *offset, *own_offset;
    ptrdiff_t band_size; /* floats, for bands */
    size_t scratch_size;
    void (*group)(const Plan *, const float *const *, ptrdiff_t, int, void *, float *, float *);
} Layout;

typedef struct { /* a complex FFT */
    int points, n_stages;
    int32_t *radices;
    float *turns, *circles;
} Fft;

typedef struct { /* filters over bins `lowest` to `highest`, below 0 and above n / 2 conjugates */
    int used, lowest, highest, head, n_rows, low_lead, n_low, room;
    float *turns, *phases, *lowpass, *low_turns;
    Fft inverse, low;
} Bands;

typedef struct {
    int used, add;
    float gain, floor, series[4], ln2, offset, factor;
} Log;

struct Plan {
    PyObject_HEAD
    int n_fft, hop_length, length, rows, a, b, columns, largest;
    int output, n_filters, width, conditioned, remove_dc;
    float preemphasis, kept, mean_weight;
    int32_t *column, *start, *filter_length;
    float *window, *turns, *circle, *weights;
    float (*roots)[2];
    Fft second;
    Bands bands;
    Log log;
    Layout layout[3];
    int widest;     /* layout that is used */
    void *scratch;  /* one that no call uses at present, or NULL */
};

#pragma GCC diagnostic ignored "-Wpsabi"

#define LANES 4
#define VARIANT 0
#include "lanes.h"
#undef LANES
#undef VARIANT

#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif
#define LANES 8
#define VARIANT 1
#include "lanes.h"
#undef LANES
#undef VARIANT
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq")
#endif
#define LANES 16
#define VARIANT 2
#include "lanes.h"
#undef LANES
#undef VARIANT
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

/* The lanes that this processor has: 4, 8 or 16. */
static int widest(void) {
#ifdef __x86_64__
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return 16;
    if (__builtin_cpu_supports("avx2")) return 8;
#endif
    return 4;
}

/* A copy of `count` values of four bytes; NULL with an exception if there are others. */
static void *table(const Py_buffer *view, size_t count, const char *name) {
    if ((size_t)view->len != 4 * count) {
        PyErr_Format(PyExc_ValueError, "%s: %zd bytes must be %zu", name, view->len, 4 * count);
        return NULL;
    }
    void *copy = PyMem_Malloc(4 * count + 1);
    if (!copy) return PyErr_NoMemory();
    return memcpy(copy, view->buf, 4 * count);
}

static int between(long value, long least, long most, const char *name) {
    if (least <= value && value <= most) return 1;
    PyErr_Format(PyExc_ValueError, "%s: %ld is not within %ld to %ld", name, value, least, most);
    return 0;
}

/* The tables of an FFT of `points`: radices, and turns and circles one after the other. */
static int fill_fft(Fft *fft, int points, const Py_buffer *radices, const Py_buffer *turns,
                    int *largest) {
    size_t n_turns = 0, n_circles = 0;
    fft->points = points;
    fft->n_stages = (int)(radices->len / 4);
    if (!between(radices->len / 4, 0, MAX_STAGES, "radices") ||
        !(fft->radices = table(radices, fft->n_stages, "radices")))
        return 0;
    int rest = points;
    for (int i = 0; i < fft->n_stages; i++) {
        int radix = fft->radices[i];
        if (radix < 2 || rest % radix || (radix % 2 == 0 && radix != 2 && radix != 4 && radix != 8)) {
            PyErr_Format(PyExc_ValueError, "radices: %d is none of %d", radix, points);
            return 0;
        }
        rest /= radix;
        n_turns += 2 * (size_t)(radix - 1) * rest;
        if (radix % 2) n_circles += 2 * (size_t)radix;
        if (radix > *largest) *largest = radix;
    }
    if (rest != 1) {
        PyErr_Format(PyExc_ValueError, "radices: their product is not %d", points);
        return 0;
    }
    if (!(fft->turns = table(turns, n_turns + n_circles, "fft_turns"))) return 0;
    fft->circles = fft->turns + n_turns;
    return 1;
}

/* Named as the arguments of Plan, in their order. */
enum { WINDOW, COLUMN, TURNS, CIRCLE, ROOTS, RADICES, FFT_TURNS, START, COUNT, WEIGHTS, BAND_TURNS,
       PHASES, INVERSE_RADICES, INVERSE_TURNS, LOWPASS, LOW_TURNS, LOW_RADICES, LOW_FFT_TURNS, INTS,
       FLOATS, TABLES };
enum { N_INTS = 16, N_FLOATS = 12 };

static int fill_bands(Plan *plan, const Py_buffer *views, const int *ints) {
    Bands *bands = &plan->bands;
    int n = plan->n_fft, points = ints[0], quarter = n / 4;
    bands->used = points > 0;
    bands->lowest = ints[1], bands->highest = ints[2], bands->head = ints[3], bands->n_rows = ints[4];
    bands->low_lead = ints[5], bands->n_low = ints[6];
    if (!between(points, 0, LARGEST, "n_points") || !between(bands->lowest, -(n / 2), n, "lowest") ||
        !between(bands->highest, bands->lowest, n, "highest") ||
        !between(bands->head, 0, points, "head") ||
        !between(bands->n_rows, 0, points - bands->head, "n_rows") ||
        !between(bands->low_lead, 0, quarter, "low_lead") ||
        !between(bands->n_low, 0, quarter - bands->low_lead, "n_low"))
        return 0;
    if (bands->n_low && (n % 8 || !bands->used)) {
        PyErr_SetString(PyExc_ValueError, "n_low: it needs bands, and n_fft in multiples of 8");
        return 0;
    }
    size_t phases = bands->used ? 2 * (size_t)plan->n_filters : 0;
    size_t turns = bands->used ? n / 2 + 1 : 0, low = bands->n_low ? n / 8 : 0;
    bands->room = points > (int)low ? points : (int)low;
    return fill_fft(&bands->inverse, bands->used ? points : 1, &views[INVERSE_RADICES],
                    &views[INVERSE_TURNS], &plan->largest) &&
           fill_fft(&bands->low, low ? (int)low : 1, &views[LOW_RADICES], &views[LOW_FFT_TURNS],
                    &plan->largest) &&
           (bands->turns = table(&views[BAND_TURNS], 2 * turns, "band_turns")) &&
           (bands->phases = table(&views[PHASES], phases, "phases")) &&
           (bands->lowpass = table(&views[LOWPASS], low ? low + 1 : 0, "lowpass")) &&
           (bands->low_turns = table(&views[LOW_TURNS], 2 * low, "low_turns"));
}

/* Sizes that the tables must have follow from n_fft alone; all that C indexes by is checked. */
static int fill(Plan *plan, Py_buffer *views, const int *ints, const float *floats) {
    plan->n_fft = ints[0], plan->hop_length = ints[1], plan->length = ints[2], plan->a = ints[3];
    plan->output = ints[4], plan->remove_dc = ints[5];
    plan->log.used = ints[6], plan->log.add = ints[7];
    int lanes = ints[8] ? ints[8] : widest();
    int n = plan->n_fft, a = plan->a, last = a / 2;
    if (!between(n, 1, LARGEST, "n_fft") || !between(plan->hop_length, 1, INT32_MAX, "hop_length") ||
        !between(plan->length, 1, n, "length") || !between(a, 1, n, "a") ||
        !between(plan->output, 0, OUTPUTS - 1, "output") || !between(lanes, 4, widest(), "lanes"))
        return 0;
    int points = plan->output == SAMPLES ? 1 : n; /* of the FFT */
    if (points % a || (a % 2 == 0 && a != 2 && a != 4 && a != 8 && a != 16 && a != 32)) {
        PyErr_Format(PyExc_ValueError, "a: %d is no first factor of n_fft = %d", a, points);
        return 0;
    }
    plan->b = points / a;
    plan->columns = last + 1;
    plan->rows = plan->hop_length < plan->length ? plan->hop_length : plan->length;
    plan->n_filters = (int)(views[START].len / 4);
    plan->largest = 1;
    if (!between(views[START].len / 4, 0, LARGEST, "filters") ||
        !fill_fft(&plan->second, plan->b, &views[RADICES], &views[FFT_TURNS], &plan->largest) ||
        !fill_bands(plan, views, ints + 9))
        return 0;
    size_t columns = plan->columns, weights = 0;
    size_t circle = a % 2 ? 2 * (size_t)a : 0, first_turns = 2 * (columns - 1) * (plan->b - 1);
    if (!(plan->window = table(&views[WINDOW], n, "window")) ||
        !(plan->column = table(&views[COLUMN], columns, "column")) ||
        !(plan->turns = table(&views[TURNS], first_turns, "turns")) ||
        !(plan->circle = table(&views[CIRCLE], circle, "circle")) ||
        !(plan->roots = table(&views[ROOTS], 64, "roots")) ||
        !(plan->start = table(&views[START], plan->n_filters, "start")) ||
        !(plan->filter_length = table(&views[COUNT], plan->n_filters, "count")))
        return 0;
    for (size_t c = 0; c < columns; c++)
        if (!between(plan->column[c], 0, a - 1, "column")) return 0;
    const Bands *bands = &plan->bands;
    int parts = plan->output == COMPLEX ? 2 : 1, values = plan->output == SAMPLES ? n : n / 2 + 1;
    int filtered = bands->used ? bands->highest - bands->lowest : values;
    for (int m = 0; m < plan->n_filters; m++) {
        if (!between(plan->start[m], 0, filtered, "start") ||
            !between(plan->filter_length[m], 0, filtered - plan->start[m], "count"))
            return 0;
        weights += plan->filter_length[m];
    }
    if (!(plan->weights = table(&views[WEIGHTS], weights, "weights"))) return 0;
    if (plan->output == COMPLEX && (plan->log.used || (plan->n_filters && !bands->used))) {
        PyErr_SetString(PyExc_ValueError, "output: complex values have no filters and no logarithm");
        return 0;
    }
    if (bands->used && (plan->log.used || plan->output == SAMPLES)) {
        PyErr_SetString(PyExc_ValueError, "bands: they are of spectra, and without a logarithm");
        return 0;
    }
    long long width = plan->n_filters;
    if (bands->used) width *= (long long)bands->n_rows * parts;
    else if (!width) width = (long long)values * parts;
    if (width > LARGEST * 4LL) {
        PyErr_Format(PyExc_ValueError, "a row has %lld values, which are too many", width);
        return 0;
    }
    plan->width = (int)width;
    plan->preemphasis = floats[0], plan->kept = floats[1], plan->mean_weight = floats[2];
    plan->conditioned = plan->remove_dc || plan->preemphasis != 0.0f;
    Log *log = &plan->log;
    log->gain = floats[3], log->floor = floats[4];
    memcpy(log->series, floats + 5, sizeof log->series);
    log->ln2 = floats[9], log->offset = floats[10], log->factor = floats[11];
    int made = lay_out_4(plan);
    plan->widest = 0;
#ifdef __x86_64__
    if (made && lanes >= 8) made = lay_out_8(plan), plan->widest = 1;
    if (made && lanes >= 16) made = lay_out_16(plan), plan->widest = 2;
#endif
    if (!made) PyErr_NoMemory();
    return made;
}

static PyObject *plan_new(PyTypeObject *type, PyObject *args, PyObject *named) {
    static const char *names[TABLES] = {
        "window",  "column", "turns",      "circle",   "roots",           "radices",       "fft_turns",
        "start",   "count",  "weights",    "band_turns", "phases",        "inverse_radices",
        "inverse_turns", "lowpass", "low_turns", "low_radices", "low_fft_turns", "ints", "floats"};
    Py_buffer views[TABLES] = {{0}};
    Plan *plan = NULL;
    int got = 0;
    if (PyTuple_Size(args) || !named || PyDict_Size(named) != TABLES) {
        PyErr_Format(PyExc_TypeError, "Plan takes %d tables by name", TABLES);
        return NULL;
    }
    for (; got < TABLES; got++) {
        PyObject *array = PyDict_GetItemString(named, names[got]);
        if (!array) PyErr_Format(PyExc_TypeError, "Plan: %s is missing", names[got]);
        if (!array || PyObject_GetBuffer(array, &views[got], PyBUF_C_CONTIGUOUS)) goto end;
    }
    if (views[INTS].len != 4 * N_INTS || views[FLOATS].len != 4 * N_FLOATS)
        PyErr_Format(PyExc_ValueError, "ints, floats: there must be %d and %d, of four bytes each",
                     N_INTS, N_FLOATS);
    else {
        int ints[N_INTS];
        float floats[N_FLOATS];
        memcpy(ints, views[INTS].buf, sizeof ints);
        memcpy(floats, views[FLOATS].buf, sizeof floats);
        allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
        plan = (Plan *)allocate(type, 0);
        if (plan && !fill(plan, views, ints, floats)) Py_CLEAR(plan);
    }
end:
    while (got--) PyBuffer_Release(&views[got]);
    return (PyObject *)plan;
}

static void plan_dealloc(PyObject *self) {
    Plan *plan = (Plan *)self;
    const Bands *bands = &plan->bands;
    const Fft *ffts[] = {&plan->second, &bands->inverse, &bands->low};
    void *tables[] = {plan->column, plan->start,  plan->filter_length, plan->window,  plan->turns,
                      plan->circle, plan->weights, plan->roots,        bands->turns,  bands->phases,
                      bands->lowpass, bands->low_turns};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) PyMem_Free(tables[i]);
    for (int i = 0; i < 3; i++) {
        PyMem_Free(ffts[i]->radices);
        PyMem_Free(ffts[i]->turns);
        PyMem_Free(plan->layout[i].offset);
        PyMem_Free(plan->layout[i].own_offset);
    }
    free(plan->scratch);
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static ptrdiff_t frames_of(const Plan *plan, const Py_buffer *signal) {
    ptrdiff_t size = signal->len / 4;
    return size < plan->length ? 0 : 1 + (size - plan->length) / plan->hop_length;
}

/* `left` frames of all signals, in groups: of one signal while it has enough, else of several. The
   last ones take the fewest lanes that hold them. */
static void of_signals(const Plan *plan, const Py_buffer *signals, ptrdiff_t left, void *scratch,
                       float *out, float *lower) {
    const float *at[16];
    for (ptrdiff_t first = 0; left > 0;) {
        while (frames_of(plan, signals) == first) signals++, first = 0;
        int variant = plan->widest, frames = 0;
        while (variant > 0 && left <= (4 << (variant - 1))) variant--;
        int lanes = 4 << variant, wanted = left < lanes ? (int)left : lanes;
        ptrdiff_t size = 0; /* of the signal from the first frame on, if all are in it */
        if (frames_of(plan, signals) - first >= wanted)
            size = signals->len / 4 - first * plan->hop_length;
        while (frames < wanted) {
            if (frames_of(plan, signals) == first) signals++, first = 0;
            else at[frames++] = (const float *)signals->buf + first++ * plan->hop_length;
        }
        plan->layout[variant].group(plan, at, size, frames, scratch, out, lower);
        if (out) out += (ptrdiff_t)frames * plan->width;
        if (lower) lower += (ptrdiff_t)frames * plan->bands.n_low;
        left -= frames;
    }
}

static int is_float32(const Py_buffer *view) {
    return view->itemsize == 4 && view->format && !strcmp(view->format, "f");
}

/* An array to write `count` rows of `width` values to, or none. */
static int writable(PyObject *target, Py_buffer *view, ptrdiff_t count, int width, const char *name) {
    if (target == Py_None) return 1;
    if (PyObject_GetBuffer(target, view, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE | PyBUF_FORMAT)) return 0;
    if (is_float32(view) && view->len == 4 * count * width) return 1;
    PyErr_Format(PyExc_ValueError, "%s: it must be float32 (%zd, %d)", name, count, width);
    return 0;
}

/* run(signals, out, lower=None) -> the number of frames. `signals` is a tuple. */
static PyObject *plan_run(PyObject *self, PyObject *args) {
    Plan *plan = (Plan *)self;
    PyObject *signals, *target, *low = Py_None;
    if (!PyArg_ParseTuple(args, "O!O|O:run", &PyTuple_Type, &signals, &target, &low)) return NULL;
    Py_ssize_t n = PyTuple_Size(signals), got = 0;
    Py_buffer out = {0}, lower = {0}, *views = PyMem_Calloc(n + 1, sizeof(Py_buffer));
    PyObject *result = NULL;
    void *scratch = NULL;
    size_t size = plan->layout[plan->widest].scratch_size;
    if (!views) return PyErr_NoMemory();
    ptrdiff_t count = 0;
    for (; got < n; got++) {
        if (PyObject_GetBuffer(PyTuple_GetItem(signals, got), &views[got],
                               PyBUF_C_CONTIGUOUS | PyBUF_FORMAT))
            goto end;
        count += frames_of(plan, &views[got]);
        if (!is_float32(&views[got])) {
            got++;
            PyErr_SetString(PyExc_TypeError, "signals: they must be of float32");
            goto end;
        }
    }
    if (target == Py_None && !plan->bands.used) {
        PyErr_SetString(PyExc_TypeError, "out: it must be an array");
        goto end;
    }
    if (low != Py_None && !plan->bands.n_low) {
        PyErr_SetString(PyExc_ValueError, "lower: the plan has no lower rate");
        goto end;
    }
    if (!writable(target, &out, count, plan->width, "out") ||
        !writable(low, &lower, count, plan->bands.n_low, "lower"))
        goto end;
    scratch = plan->scratch, plan->scratch = NULL; /* the GIL is held */
    if (!scratch && !(scratch = aligned_alloc(64, (size + 127) / 64 * 64))) {
        PyErr_NoMemory();
        goto end;
    }
    Py_BEGIN_ALLOW_THREADS;
    of_signals(plan, views, count, scratch, out.obj ? out.buf : NULL, lower.obj ? lower.buf : NULL);
    Py_END_ALLOW_THREADS;
    if (plan->scratch) free(scratch);
    else plan->scratch = scratch;
    result = PyLong_FromSsize_t(count);
end:
    for (Py_ssize_t i = 0; i < got; i++) PyBuffer_Release(&views[i]);
    if (out.obj) PyBuffer_Release(&out);
    if (lower.obj) PyBuffer_Release(&lower);
    PyMem_Free(views);
    return result;
}

static PyMethodDef plan_methods[] = {
    {"run", plan_run, METH_VARARGS,
     "run(signals, out, lower=None): write the rows of all frames of the signals, a tuple of float32 "
     "arrays."},
    {NULL}};
static PyType_Slot plan_slots[] = {{Py_tp_new, plan_new},
                                   {Py_tp_dealloc, plan_dealloc},
                                   {Py_tp_methods, plan_methods},
                                   {Py_tp_doc, "The tables of one transform, checked."},
                                   {0, NULL}};
static PyType_Spec plan_spec = {"basilar.dsp.kernel._native.Plan", sizeof(Plan), 0, Py_TPFLAGS_DEFAULT,
                                plan_slots};

static int module_exec(PyObject *module) {
    PyObject *type = PyType_FromSpec(&plan_spec);
    int failed = !type || PyModule_AddObjectRef(module, "Plan", type);
    Py_XDECREF(type);
    return failed || PyModule_AddIntConstant(module, "LANES", widest()) ||
                   PyModule_AddIntConstant(module, "VERSION", VERSION)
               ? -1
               : 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", NULL, 0, NULL, module_slots, NULL,
                                    NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&module); }
