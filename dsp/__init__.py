"""Pure signal processing: arrays in, arrays out, the same bits on every processor.

Everything here is a function of its arguments: no files, no global state, inputs never changed.
Time is the first axis of every result. Axis letters in names: `t` frames, `f` frequency bins,
`m` mel bands; an array called `power_ft` is (frequency, time).

Portable bits: values are made with `+ - * /`, `sqrt`, `scipy.fft`, CSR products and soxr only,
which give the same bits on every x86-64 processor with AVX2. NumPy's `log`, `exp`, `sin`, `abs` of
complex numbers, `sum` along the contiguous axis and anything that ends in BLAS do not, and are used
for tables alone (windows, filter banks), in float64, before rounding to float32.
"""
