"""Pictures of a recipe without a clip: the mel scale and filter banks.

They are drawn on Matplotlib's axes, as those of `report.plots.drawing` are, from the same tables
that features are computed with.
"""

import numpy as np
from matplotlib.axes import Axes

from basilar.dsp.chroma import stft_to_chroma
from basilar.dsp.cqt import Cqt
from basilar.pipeline.recipes.kinds.chroma import Chroma
from basilar.pipeline.recipes.kinds.constant_q import ConstantQ
from basilar.pipeline.recipes.kinds.mel import MelBands
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.report.plots.axes import columns, of_cqt, of_stft
from basilar.pipeline.report.plots.drawing import BRIGHT, DARK, PALE, colour_bar, frequency_axis


def mel_scale(ax: Axes, recipe: Recipe) -> None:
    """Draw the centres of a recipe's mel bands in Hz, with linear and logarithmic part marked."""
    across = columns(recipe)
    hz, number = across.centres, np.arange(1, across.centres.size + 1)
    # The htk scale bends slowly: at 700 Hz its slope has fallen to a half.
    limit, nearly = (1000.0, "") if across.mel_scale == "slaney" else (700.0, "nearly ")
    for part, name, colour in (
        (hz <= limit, f"{nearly}linear up to {limit:g} Hz", DARK),
        (hz > limit, f"{nearly}logarithmic above", BRIGHT),
    ):
        ax.plot(number[part], hz[part], ".-", color=colour, linewidth=0.8, markersize=4, label=name)
    ax.axhline(limit, color=PALE, linewidth=0.8, zorder=0)
    ax.set_xlabel(f"mel band ({across.mel_scale} scale)")
    ax.set_ylabel("centre frequency (Hz)")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)


def filters(ax: Axes, recipe: Recipe) -> None:
    """Draw the filters of a recipe. Raises ValueError if it has none.

    Mel bands: the weight of each STFT bin in every band. Chroma: the same, as an image. CQT: the
    main lobe of every filter's response over Hz, 1 at its centre.
    """
    kind, sample_rate = recipe.representation, recipe.resample.sample_rate
    if isinstance(kind, MelBands):
        _mel_filters(ax, kind, sample_rate)
    elif isinstance(kind, ConstantQ):
        _cqt_filters(ax, kind.parameters, sample_rate)
    elif isinstance(kind, Chroma):
        _chroma_filters(ax, kind, recipe)
    else:
        raise ValueError(f"{kind.kind} has no filters")


def _mel_filters(ax: Axes, bands: MelBands, sample_rate: int) -> None:
    hz = np.arange(bands.framing.n_bins) * (sample_rate / bands.n_fft)
    bank = bands.bank.filters(sample_rate=sample_rate, n_fft=bands.n_fft)
    for band, weights in enumerate(bank.toarray()):
        there = np.flatnonzero(weights)
        if there.size:
            part = slice(max(there[0] - 1, 0), there[-1] + 2)
            ax.plot(hz[part], weights[part], color=(DARK, BRIGHT)[band % 2], linewidth=0.8)
    ax.set_xlim(bands.fmin, bands.fmax)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("frequency (Hz)")
    ax.set_ylabel("weight")


def _cqt_filters(ax: Axes, parameters: Cqt, sample_rate: int) -> None:
    lobe = np.linspace(-2, 2, 65)  # in sample_rate / length: Hann's spectrum is 0 at both ends
    gain = np.abs(np.sinc(lobe) + (np.sinc(lobe - 1) + np.sinc(lobe + 1)) / 2)
    lengths = parameters.lengths(sample_rate=sample_rate)
    for number, (hz, length) in enumerate(zip(parameters.frequencies(), lengths, strict=True)):
        around = hz + lobe * sample_rate / length
        shown = around > 0
        ax.plot(around[shown], gain[shown], color=(DARK, BRIGHT)[number % 2], linewidth=0.8)
    frequency_axis(ax, of_cqt(parameters), "linear", "x")
    ax.set_ylim(bottom=0)
    ax.set_ylabel("relative gain")


def _chroma_filters(ax: Axes, kind: Chroma, recipe: Recipe) -> None:
    sample_rate = recipe.resample.sample_rate
    weights = stft_to_chroma(sample_rate=sample_rate, n_fft=kind.n_fft, **kind.filters)
    bins, classes = of_stft(kind.n_fft, sample_rate), columns(recipe)
    mesh = ax.pcolormesh(bins.edges, classes.edges, weights.toarray(), rasterized=True)
    colour_bar(ax, mesh, "weight")
    frequency_axis(ax, classes)
    frequency_axis(ax, bins, "log", "x")
