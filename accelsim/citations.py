"""The references that a spec rests on: of its numbers, of its models, and of the mathematics that predicts with them."""

from collections.abc import Iterator
from dataclasses import dataclass

from accelsim.accelerator import Accelerator
from accelsim.memory_spec import StoredWords
from devices.base.toml_codec import kind_of

MODELS = {
    "logarithmic": "S. R. Nandakumar et al., Phase-change memory models for deep learning training and inference, IEEE ICECS 2019",
    "one_over_f": "S. R. Nandakumar et al., Phase-change memory models for deep learning training and inference, IEEE ICECS 2019",
    "sar": "M. Saberi, R. Lotfi, K. Mafinezhad and W. A. Serdijn, IEEE TCAS-I 58 (2011) 1736 (capacitor mismatch)",
    "survey_regression": "T. Andrulis et al., Modeling Analog-Digital-Converter Energy and Area for Compute-In-Memory Accelerator Design, "
    "arXiv 2404.06553; B. Murmann, ADC Performance Survey",
    "walden": "R. H. Walden, Analog-to-digital converter survey and analysis, IEEE JSAC 17 (1999) 539",
    "schreier": "R. Schreier and G. C. Temes, Understanding Delta-Sigma Data Converters, 2005",
    "zigzag_sar": "L. Mei et al., ZigZag, IEEE Trans. Comput. 70 (2021) 1160; its SAR model of version 3.8.5",
    "zigzag_dac": "L. Mei et al., ZigZag, IEEE Trans. Comput. 70 (2021) 1160; its DAC model of version 3.8.5",
}
"""By kind of law or cost model."""
METHOD = (
    "J. Kern et al., MemSE: Fast MSE Prediction for Noisy Memristor-Based DNN Accelerators, IEEE AICAS 2022, arXiv 2205.01707",
    "J. K. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011 (Philox, of Monte-Carlo)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """What of a spec rests on a reference."""

    what: str
    reference: str


def citations(accelerator: Accelerator) -> tuple[Citation, ...]:
    """Return the references of a spec: its cells' source, those of its layers, of its chip, of its models, and of the method."""
    found = dict.fromkeys(_citations(accelerator)) | dict.fromkeys(_chip(accelerator))
    for name in accelerator.layer_names:
        found |= dict.fromkeys(_citations(accelerator.for_layer(name)))
    found |= dict.fromkeys(Citation(what="prediction and sampling", reference=reference) for reference in METHOD)
    return tuple(found)


def _chip(accelerator: Accelerator) -> Iterator[Citation]:
    """Yield the source of each part of the chip; what is only remembered says so."""
    for part in () if accelerator.chip is None else accelerator.chip.parts:
        remembered = " (remembered, not read)" if part.tag == "remembered" else ""
        yield Citation(what=f"chip.parts.{part.name}", reference=part.source + remembered)


def _memories(accelerator: Accelerator) -> Iterator[Citation]:
    """Yield the sources of each memory's energies and of its law of errors."""
    for part in () if accelerator.memory is None else ("weights", "activations", "partial_sums"):
        stored = getattr(accelerator.memory, part)
        if isinstance(stored, StoredWords):
            memory = stored.memory()
            yield Citation(what=f"memory.{part}, errors", reference=memory.law.source)
            if memory.source:
                yield Citation(what=f"memory.{part}, energies", reference=memory.source)


def _citations(accelerator: Accelerator) -> Iterator[Citation]:
    cell = accelerator.cell
    yield Citation(what="cell", reference=cell.source or "no source is given: set cell.source")
    laws = {
        f"cell.{name}": getattr(cell, name)
        for name in ("programming", "device_to_device", "drift", "low_frequency_noise", "stuck", "read_noise", "conduction")
    }
    for path, converter in (("drive.dac", accelerator.drive.dac), ("sense.adc", accelerator.sense.adc)):
        laws[path] = converter
        laws[f"{path}.conversion"] = getattr(converter, "conversion", None)
    for path, law in laws.items():
        if law is None:
            continue
        if kind_of(law) in MODELS:
            yield Citation(what=f"{path} ({kind_of(law)})", reference=MODELS[kind_of(law)])
        if source := getattr(law, "source", ""):
            yield Citation(what=path, reference=source)
    yield from _memories(accelerator)
