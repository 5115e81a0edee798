"""Everything that touches files, Luigi, Zarr or MLflow, around the pure functions of `dsp`."""
