"""The pictures by name: what each is drawn from, and the recipes that it fits.

A picture has a subject, a recipe and a clip, and reads only what it needs of them: the features,
stored or computed, the audio, or neither.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from basilar.pipeline import storage
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.errors import BasilarError
from basilar.pipeline.recipes.kinds.chroma import Chroma
from basilar.pipeline.recipes.kinds.constant_q import ConstantQ
from basilar.pipeline.recipes.kinds.framed import Framed
from basilar.pipeline.recipes.kinds.mel import MelBands
from basilar.pipeline.recipes.kinds.registry import KINDS
from basilar.pipeline.recipes.kinds.spectra import Spectral
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.records.locate import locate
from basilar.pipeline.records.record import manifest_of
from basilar.pipeline.report.plots import banks, drawing
from basilar.pipeline.report.plots.axes import Scale
from basilar.pipeline.training.feature_set import FeatureSet

Signal = NDArray[np.float32]


class PictureError(BasilarError, ValueError):
    """A picture that cannot be drawn as requested; the message says which can."""


def _no_clip() -> NoReturn:
    raise PictureError(
        "basilar plot: this picture needs a clip; name a file, or a key and the id of a clip"
    )


@dataclass(frozen=True)
class Subject:
    """The subject of a picture: a recipe and, unless the recipe is enough, a clip.

    `signal` returns the clip's samples at the recipe's rate, float32 (samples,), and `features` its
    features (frames, bins), as stored; both begin `start` seconds after the clip does.
    """

    recipe: Recipe
    start: float = 0.0
    signal: Callable[[], Signal] = _no_clip
    features: Callable[[], NDArray[Any]] = _no_clip


def of_file(recipe: Recipe, file: Path, offset: float, duration: float | None) -> Subject:
    """The subject of an audio file, or of an excerpt of it, in seconds."""
    transform = Transform(recipe)

    @cache
    def signal() -> Signal:
        y, sample_rate = transform.decode(file, offset=offset, duration=duration)
        return transform.resample(y, source_rate=sample_rate)

    return Subject(recipe, offset, signal, lambda: _represent(recipe, signal()))


def of_clip(
    fs: FeatureSet,
    clip: str,
    *,
    root: Path,
    audio_root: Path | None,
    offset: float,
    duration: float | None,
) -> Subject:
    """The subject of a clip of a feature set under `root`, or of its frames in an excerpt.

    Its audio is searched for where the manifest says, or below `audio_root`, by its content. Raises
    PictureError if the set has no such clip, or no frame is centred in the excerpt.
    """
    row = _row_of(fs, clip)
    recipe = fs.typed_recipe
    kind, sample_rate = recipe.representation, recipe.resample.sample_rate
    centres = kind.centres(np.arange(fs.n_frames[row], dtype=np.float64)) / sample_rate
    end = np.inf if duration is None else offset + duration
    first, stop = np.searchsorted(centres, [offset, end]).tolist()
    if first >= stop:
        raise PictureError(
            f"{clip}: no frame is between {offset:g} and {end:g} s; its frames are centred on "
            f"{centres[0]:.3f} to {centres[-1]:.3f} s"
        )
    hop = int(kind.centres(np.ones(1))[0] - kind.centres(np.zeros(1))[0])

    @cache
    def signal() -> Signal:
        content = fs.clips["content"][row]
        manifest = locate(manifest_of(root, fs.attributes), audio_root, needed={content})
        (source,) = (entry for entry in manifest.table.to_pylist() if entry["id"] == clip)
        transform = Transform(recipe)
        excerpt = {name: source[name] for name in ("offset", "duration")}
        y, rate = transform.decode(storage.fetch(manifest.root / source["path"]), **excerpt)
        whole = transform.resample(y, source_rate=rate)
        return whole[first * hop : None if duration is None else stop * hop]

    start = first * hop / sample_rate
    return Subject(recipe, start, signal, lambda: fs.read(row, first, stop - first))


def _row_of(fs: FeatureSet, clip: str) -> int:
    ids = fs.clips["id"].tolist()
    if clip in ids:
        return int(ids.index(clip))
    for lost in fs.quarantine.itertuples():
        if lost.id == clip:
            raise PictureError(
                f"{clip}: quarantined at {lost.stage}: {lost.reason}: {lost.message}; name another "
                "clip"
            )
    near = difflib.get_close_matches(clip, ids, 1)
    guess = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(ids)[:5])} …"
    raise PictureError(f"{fs.path}: no clip has the id {clip!r}; {guess}")


def draw(name: str, subject: Subject, scale: Scale | None = None) -> Figure:
    """Draw a picture of a subject; draw and render it inside `drawing.style`.

    `scale` is that of frequencies, by default the one that suits the recipe. Raises PictureError if
    the picture or the scale does not fit the recipe, or if the picture needs a clip.
    """
    picture, kind = PICTURES[name], subject.recipe.representation.kind
    if kind not in picture.kinds:
        fitting = ", ".join(n for n, other in PICTURES.items() if kind in other.kinds)
        raise PictureError(
            f"--picture {name}: it does not fit a recipe of kind {kind}, only of "
            f"{', '.join(picture.kinds)}; pictures of {kind} are {fitting}"
        )
    if scale is not None and not picture.scales:
        scaled = ", ".join(n for n, other in PICTURES.items() if other.scales)
        raise PictureError(f"--scale {scale}: {name} has its own; leave it out, or draw {scaled}")
    figure = drawing.figure(picture.height)
    picture.draw(figure, subject, scale)
    return figure


def default(recipe: Recipe) -> str:
    """The picture that suits a recipe."""
    return "spectrogram" if recipe.representation.kind in _IMAGES else "values"


def _waveform(figure: Figure, subject: Subject, scale: Scale | None) -> None:
    sample_rate = subject.recipe.resample.sample_rate
    drawing.waveform(figure.add_subplot(), subject.signal(), sample_rate, start=subject.start)


def _zoom(figure: Figure, subject: Subject, scale: Scale | None) -> None:
    sample_rate = subject.recipe.resample.sample_rate
    drawing.zoom(figure, subject.signal(), sample_rate, start=subject.start)


def _spectrogram(figure: Figure, subject: Subject, scale: Scale | None) -> None:
    _panel(figure, 111, subject.recipe, subject.features(), subject.start, scale=scale)


def _values(figure: Figure, subject: Subject, scale: Scale | None) -> None:
    recipe, start, x = subject.recipe, subject.start, subject.features()
    if recipe.representation.kind in _IMAGES:
        _panel(figure, 111, recipe, x, start, scale=scale, decibels=False)
    elif scale is not None:
        raise PictureError(
            f"--scale {scale}: {recipe.representation.kind} has no frequencies; leave it out"
        )
    elif recipe.representation.kind == "waveform":
        sample_rate = recipe.resample.sample_rate
        drawing.waveform(figure.add_subplot(), x[:, 0], sample_rate, start=start)
    else:
        drawing.curves(figure, x, recipe, start=start)


def _mel_and_stft(figure: Figure, subject: Subject, scale: Scale | None) -> None:
    _beside(figure, subject, "decibel", "log_mel")


def _mel_and_cqt(figure: Figure, subject: Subject, scale: Scale | None) -> None:
    _beside(figure, subject, "log_mel", "log_cqt")


def _beside(figure: Figure, subject: Subject, *kinds: str) -> None:
    for place, kind in enumerate(kinds, 121):
        _panel(figure, place, *_of_kind(subject, kind), subject.start, bar="bottom")


def _mean_spectrum(figure: Figure, subject: Subject, scale: Scale | None) -> None:
    constant_q = isinstance(subject.recipe.representation, ConstantQ)
    recipe, x = _of_kind(subject, "cqt_magnitude" if constant_q else "magnitude")
    drawing.mean_spectrum(figure, x, recipe, scale=scale)


def _mel_scale(figure: Figure, subject: Subject, scale: Scale | None) -> None:
    banks.mel_scale(figure.add_subplot(), subject.recipe)


def _filters(figure: Figure, subject: Subject, scale: Scale | None) -> None:
    banks.filters(figure.add_subplot(), subject.recipe)


def _panel(
    figure: Figure, place: int, recipe: Recipe, x: NDArray[Any], start: float, **how: Any
) -> None:
    ax = figure.add_subplot(place)
    try:
        drawing.spectrogram(ax, x, recipe, start=start, **how)
    except ValueError as error:
        raise PictureError(str(error)) from None
    ax.set_title(f"{recipe.representation.kind}: {len(x)} frames × {x.shape[1]} bins", loc="left")


def _of_kind(subject: Subject, kind: str) -> tuple[Recipe, NDArray[Any]]:
    """A recipe of that kind, as close to the subject's own as possible, and its features."""
    recipe, own = subject.recipe, subject.recipe.representation
    if own.kind == kind:
        return recipe, subject.features()
    shared = {"hop_length"}
    for section in (Framed, MelBands, ConstantQ):
        if isinstance(own, section) and issubclass(KINDS[kind], section):
            shared = set(section.model_fields)
    table = recipe.model_dump(include={"decode", "resample"})
    table["representation"] = {
        **(_quarter_tones(recipe.resample.sample_rate) if kind == "log_cqt" else {}),
        **own.model_dump(include=shared, exclude_none=True),
        "kind": kind,
    }
    derived = Recipe.from_dict(table, source=f"the {kind} beside {own.kind}")
    return derived, _represent(derived, subject.signal())


def _quarter_tones(sample_rate: int) -> dict[str, int]:
    """The octaves of a CQT from C1 up that fit below half the sample rate, at most seven."""
    octaves = int(np.log2(0.95 * sample_rate / 2 / 32.7))
    return {"bins_per_octave": 24, "n_bins": 24 * min(max(octaves, 1), 7)}


def _represent(recipe: Recipe, y: Signal) -> NDArray[Any]:
    if not recipe.representation.n_frames(y.size):
        raise PictureError(
            f"{recipe.representation.kind}: {y.size} samples at {recipe.resample.sample_rate} Hz "
            "are less than one frame; name a longer clip"
        )
    return Transform(recipe).represent([y])[0]


class _Picture(NamedTuple):
    draw: Callable[[Figure, Subject, Scale | None], None]
    kinds: tuple[str, ...]
    scales: bool = False  # whether --scale may choose the scale of frequencies
    height: float = 3.2  # inches


def _kinds(*sections: type, but: tuple[type, ...] = ()) -> tuple[str, ...]:
    return tuple(
        kind
        for kind, section in KINDS.items()
        if issubclass(section, sections) and not issubclass(section, but)
    )


_IMAGES = _kinds(Framed, ConstantQ, but=(Spectral,))
PICTURES = {
    "waveform": _Picture(_waveform, tuple(KINDS), height=2.2),
    "zoom": _Picture(_zoom, tuple(KINDS), height=5.2),
    "spectrogram": _Picture(_spectrogram, _IMAGES, scales=True),
    "values": _Picture(_values, tuple(KINDS), scales=True),
    "mean_spectrum": _Picture(_mean_spectrum, _kinds(Framed, ConstantQ), scales=True, height=4),
    "mel_and_stft": _Picture(_mel_and_stft, _kinds(Framed), height=3.6),
    "mel_and_cqt": _Picture(_mel_and_cqt, _kinds(Framed, ConstantQ), height=3.6),
    "mel_scale": _Picture(_mel_scale, _kinds(MelBands)),
    "filters": _Picture(_filters, _kinds(MelBands, ConstantQ, Chroma)),
}
