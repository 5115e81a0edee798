"""All kinds of representations: a union with the tag `kind`."""

from typing import Annotated, get_args

from pydantic import Field

from basilar.pipeline.recipes.kinds.base import Representation
from basilar.pipeline.recipes.kinds.chroma import Chroma
from basilar.pipeline.recipes.kinds.constant_q import ChromaCqt, ComplexCqt, CqtMagnitude, LogCqt
from basilar.pipeline.recipes.kinds.mel import LogMel, Mel, Mfcc, Pcen
from basilar.pipeline.recipes.kinds.spectra import (
    Decibel,
    LogMagnitude,
    Magnitude,
    PowerSpectrum,
    Spectral,
    Stft,
    Waveform,
)

AnyRepresentation = Annotated[
    Waveform
    | Stft
    | Magnitude
    | PowerSpectrum
    | LogMagnitude
    | Decibel
    | Mel
    | LogMel
    | Mfcc
    | Pcen
    | Chroma
    | Spectral
    | ComplexCqt
    | CqtMagnitude
    | LogCqt
    | ChromaCqt,
    Field(discriminator="kind"),
]
KINDS: dict[str, type[Representation]] = {
    get_args(section.model_fields["kind"].annotation)[0]: section
    for section in get_args(get_args(AnyRepresentation)[0])
}
