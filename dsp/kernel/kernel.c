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

#define VERSION 1 /* that of native.py */
#define ROOT_HALF 0.70710678118654752440f
#define MAX_STAGES 32
#define LARGEST (1 << 22) /* n_fft, and other sizes: products of two fit into 64 bits */

typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
#define SHUFFLE __builtin_shufflevector

enum { COMPLEX, POWER, MAGNITUDE, OUTPUTS };

typedef struct Plan Plan;

typedef struct {
    int columns, pitch; /* of the hops, transposed */
    int32_t *offset, *conditioned_offset;
    size_t scratch_size;
    void (*group)(const Plan *, const float *, ptrdiff_t, int, void *, float *);
} Layout;

typedef struct {
    int used, add;
    float gain, floor, series[4], ln2, offset, factor;
} Log;

struct Plan {
    PyObject_HEAD
    int n_fft, hop_length, length, rows, a, b, columns, n_stages, largest;
    int output, n_filters, width, conditioned, remove_dc;
    float preemphasis, kept, mean_weight;
    int32_t *column, *radices, *start, *filter_length;
    float *window, *turns, *fft_turns, *circle, *circles, *weights;
    float (*roots)[2];
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

/* Sizes that the tables must have follow from n_fft alone; all that C indexes by is checked. */
static int fill(Plan *plan, Py_buffer *views, const int *ints, const float *floats) {
    enum { WINDOW, COLUMN, TURNS, RADICES, FFT_TURNS, CIRCLE, CIRCLES, ROOTS, START, COUNT, WEIGHTS };
    plan->n_fft = ints[0], plan->hop_length = ints[1], plan->length = ints[2], plan->a = ints[3];
    plan->output = ints[4], plan->remove_dc = ints[5], plan->log.used = ints[6], plan->log.add = ints[7];
    int lanes = ints[8] ? ints[8] : widest();
    int n = plan->n_fft, a = plan->a, last = a / 2;
    if (!between(n, 1, LARGEST, "n_fft") || !between(plan->hop_length, 1, INT32_MAX, "hop_length") ||
        !between(plan->length, 1, n, "length") || !between(a, 1, n, "a") ||
        !between(plan->output, 0, OUTPUTS - 1, "output") || !between(lanes, 4, widest(), "lanes"))
        return 0;
    if (n % a || (a % 2 == 0 && a != 2 && a != 4 && a != 8 && a != 16 && a != 32)) {
        PyErr_Format(PyExc_ValueError, "a: %d is no first factor of n_fft = %d", a, n);
        return 0;
    }
    plan->b = n / a;
    plan->columns = last + 1;
    plan->rows = plan->hop_length < plan->length ? plan->hop_length : plan->length;
    plan->n_stages = (int)(views[RADICES].len / 4);
    plan->n_filters = (int)(views[START].len / 4);
    if (!between(plan->n_stages, 0, MAX_STAGES, "radices") ||
        !between(views[START].len / 4, 0, LARGEST, "filters"))
        return 0;
    size_t columns = plan->columns, circles = 0, turns = 0, weights = 0;
    if (!(plan->radices = table(&views[RADICES], plan->n_stages, "radices"))) return 0;
    int rest = plan->b;
    plan->largest = 1;
    for (int i = 0; i < plan->n_stages; i++) {
        int radix = plan->radices[i];
        if (radix < 2 || rest % radix || (radix % 2 == 0 && radix != 2 && radix != 4 && radix != 8)) {
            PyErr_Format(PyExc_ValueError, "radices: %d is none of %d", radix, plan->b);
            return 0;
        }
        rest /= radix;
        turns += 2 * (size_t)(radix - 1) * rest;
        if (radix % 2) circles += 2 * (size_t)radix;
        if (radix > plan->largest) plan->largest = radix;
    }
    if (rest != 1) {
        PyErr_Format(PyExc_ValueError, "radices: their product is not %d", plan->b);
        return 0;
    }
    size_t circle = a % 2 ? 2 * (size_t)a : 0, first_turns = 2 * (columns - 1) * (plan->b - 1);
    if (!(plan->window = table(&views[WINDOW], n, "window")) ||
        !(plan->column = table(&views[COLUMN], columns, "column")) ||
        !(plan->turns = table(&views[TURNS], first_turns, "turns")) ||
        !(plan->fft_turns = table(&views[FFT_TURNS], turns, "fft_turns")) ||
        !(plan->circle = table(&views[CIRCLE], circle, "circle")) ||
        !(plan->circles = table(&views[CIRCLES], circles, "circles")) ||
        !(plan->roots = table(&views[ROOTS], 64, "roots")) ||
        !(plan->start = table(&views[START], plan->n_filters, "start")) ||
        !(plan->filter_length = table(&views[COUNT], plan->n_filters, "count")))
        return 0;
    for (size_t c = 0; c < columns; c++)
        if (!between(plan->column[c], 0, a - 1, "column")) return 0;
    for (int m = 0; m < plan->n_filters; m++) {
        if (!between(plan->start[m], 0, n / 2, "start") ||
            !between(plan->filter_length[m], 0, n / 2 + 1 - plan->start[m], "count"))
            return 0;
        weights += plan->filter_length[m];
    }
    if (!(plan->weights = table(&views[WEIGHTS], weights, "weights"))) return 0;
    int values = plan->output == COMPLEX ? 2 * (n / 2 + 1) : n / 2 + 1;
    if (plan->output == COMPLEX && (plan->n_filters || plan->log.used)) {
        PyErr_SetString(PyExc_ValueError, "output: complex values have no filters and no logarithm");
        return 0;
    }
    plan->width = plan->n_filters ? plan->n_filters : values;
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
    static char *names[] = {"window",  "column", "turns", "radices", "fft_turns", "circle", "circles",
                            "roots",   "start",  "count", "weights", "ints",      "floats", NULL};
    enum { N = 13, INTS = 9, FLOATS = 12 };
    Py_buffer views[N] = {{0}};
    Plan *plan = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, named, "$y*y*y*y*y*y*y*y*y*y*y*y*y*:Plan", names, views,
                                     views + 1, views + 2, views + 3, views + 4, views + 5, views + 6,
                                     views + 7, views + 8, views + 9, views + 10, views + 11,
                                     views + 12))
        return NULL;
    if (views[11].len != 4 * INTS || views[12].len != 4 * FLOATS)
        PyErr_SetString(PyExc_ValueError, "ints, floats: there must be 9 and 12, of four bytes each");
    else {
        int ints[INTS];
        float floats[FLOATS];
        memcpy(ints, views[11].buf, sizeof ints);
        memcpy(floats, views[12].buf, sizeof floats);
        allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
        plan = (Plan *)allocate(type, 0);
        if (plan && !fill(plan, views, ints, floats)) Py_CLEAR(plan);
    }
    for (int i = 0; i < N; i++) PyBuffer_Release(&views[i]);
    return (PyObject *)plan;
}

static void plan_dealloc(PyObject *self) {
    Plan *plan = (Plan *)self;
    void *tables[] = {plan->column, plan->radices, plan->start,   plan->filter_length, plan->window,
                      plan->turns,  plan->fft_turns, plan->circle, plan->circles,     plan->weights,
                      plan->roots};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) PyMem_Free(tables[i]);
    for (int i = 0; i < 3; i++) {
        PyMem_Free(plan->layout[i].offset);
        PyMem_Free(plan->layout[i].conditioned_offset);
    }
    free(plan->scratch);
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* All frames of one signal. A rest of few frames takes the fewest lanes that hold it. */
static float *of_signal(const Plan *plan, const float *x, ptrdiff_t size, void *scratch, float *out) {
    ptrdiff_t count = size < plan->length ? 0 : 1 + (size - plan->length) / plan->hop_length;
    for (ptrdiff_t first = 0; first < count;) {
        ptrdiff_t left = count - first, begin = first * plan->hop_length;
        int variant = plan->widest;
        while (variant > 0 && left <= (4 << (variant - 1))) variant--;
        int lanes = 4 << variant, frames = left < lanes ? (int)left : lanes;
        plan->layout[variant].group(plan, x + begin, size - begin, frames, scratch, out);
        out += (ptrdiff_t)frames * plan->width;
        first += frames;
    }
    return out;
}

static int is_float32(const Py_buffer *view) {
    return view->itemsize == 4 && view->format && !strcmp(view->format, "f");
}

/* run(signals, out) -> the number of frames. `signals` is a tuple. */
static PyObject *plan_run(PyObject *self, PyObject *args) {
    Plan *plan = (Plan *)self;
    PyObject *signals, *target;
    if (!PyArg_ParseTuple(args, "O!O:run", &PyTuple_Type, &signals, &target)) return NULL;
    Py_ssize_t n = PyTuple_Size(signals), got = 0;
    Py_buffer out, *views = PyMem_Calloc(n + 1, sizeof(Py_buffer));
    PyObject *result = NULL;
    void *scratch = NULL;
    size_t size = plan->layout[plan->widest].scratch_size;
    if (!views) return PyErr_NoMemory();
    if (PyObject_GetBuffer(target, &out, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE | PyBUF_FORMAT)) {
        PyMem_Free(views);
        return NULL;
    }
    ptrdiff_t count = 0;
    for (; got < n; got++) {
        if (PyObject_GetBuffer(PyTuple_GetItem(signals, got), &views[got],
                               PyBUF_C_CONTIGUOUS | PyBUF_FORMAT))
            goto end;
        ptrdiff_t samples = views[got].len / 4;
        if (samples >= plan->length) count += 1 + (samples - plan->length) / plan->hop_length;
        if (!is_float32(&views[got])) {
            got++;
            PyErr_SetString(PyExc_TypeError, "signals: they must be of float32");
            goto end;
        }
    }
    if (!is_float32(&out) || out.len != 4 * count * plan->width) {
        PyErr_Format(PyExc_ValueError, "out: it must be float32 (%zd, %d)", count, plan->width);
        goto end;
    }
    scratch = plan->scratch, plan->scratch = NULL; /* the GIL is held */
    if (!scratch && !(scratch = aligned_alloc(64, (size + 127) / 64 * 64))) {
        PyErr_NoMemory();
        goto end;
    }
    Py_BEGIN_ALLOW_THREADS;
    float *to = out.buf;
    for (Py_ssize_t i = 0; i < n; i++)
        to = of_signal(plan, views[i].buf, views[i].len / 4, scratch, to);
    Py_END_ALLOW_THREADS;
    if (plan->scratch) free(scratch);
    else plan->scratch = scratch;
    result = PyLong_FromSsize_t(count);
end:
    for (Py_ssize_t i = 0; i < got; i++) PyBuffer_Release(&views[i]);
    PyBuffer_Release(&out);
    PyMem_Free(views);
    return result;
}

static PyMethodDef plan_methods[] = {
    {"run", plan_run, METH_VARARGS,
     "run(signals, out): write the rows of all frames of the signals, a tuple of float32 arrays."},
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
