"""Pure signal processing: arrays in, arrays out, the same bits on every processor.

Results depend on the arguments alone: no files, no global state. Inputs are changed only where a
docstring says so. Time is the first axis of features. Axis letters in names: `t` frames,
`f` frequency bins, `m` mel bands; an array called `power_ft` is (frequency, time).

Portable bits: transforms, filters, logarithms and resampling are by `dsp.kernel`, which computes
with single operations of IEEE 754 in a stated order (tested on x86-64 and an emulated 64-bit Arm).
So does what is left to NumPy: `+ - * /` and `sqrt`. NumPy's `log`, `exp`, `sin`, `abs` of complex
numbers, `sum` along the contiguous axis and everything that calls BLAS differ between processors.
They are used only for tables (windows, filter banks), in float64, before rounding to float32. soxr,
an optional resampler, has bits of its own.
"""
