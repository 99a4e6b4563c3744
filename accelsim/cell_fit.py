"""`accelsim fit`: from measured cells to a spec that uses their law."""

from pathlib import Path
from typing import Any

from accelsim.accelerator import Accelerator
from accelsim.report.base import columns_table
from devices.base.quantity import format_quantity
from devices.base.toml_codec import string_text, write_lines
from devices.fit import Fit
from devices.measurements import Measurements

BASE = "memse"


def cell_toml(data: Measurements, fit: Fit, *, name: str) -> str:
    """Return a spec with the fitted cell; the rest is that of a preset, which its `use` names."""
    low, high = (format_quantity(g, "siemens") for g in (float(data.target_siemens.min()), fit.g_max_siemens))
    law = "\n".join(write_lines(fit.law))
    text = f"""# Fitted by `accelsim fit` to {data.name}: {fit.label}, {fit.n} measurements.
# sha256 of the data: {data.digest}
schema = 1
name = {string_text(name)}
use = "{BASE}"           # read voltage and mapping, which the data does not tell

[cell]
g_min_siemens = "{low}"
g_max_siemens = "{high}"
source = {string_text(f"fit of {data.name}, sha256 {data.digest[:16]}, {fit.n} measurements")}

[cell.programming]
kind = "{fit.law.kind}"
{law}
"""
    Accelerator.from_text(text, origin=name)  # what is written can be read
    return text


def fit_text(data: Measurements, fit: Fit) -> str:
    """Return the fit as tables: laws, parameters, states, and what to think of it."""
    least = min(fit.bic.values())
    laws = [
        [label + (" *" if label == fit.label else ""), f"{bic - least:+.1f}"] for label, bic in sorted(fit.bic.items(), key=lambda x: x[1])
    ]
    parameters = [
        [n, _shown(n, v), "not known" if fit.half_widths[n] != fit.half_widths[n] else f"+- {_shown(n, fit.half_widths[n])}"]
        for n, v in fit.parameters.items()
    ]
    states = [
        [f"{1e6 * s.target_siemens:.4g}", str(s.n), f"{1e6 * s.mean_error_siemens:+.3g}", f"{1e6 * s.std_siemens:.4g}",
         f"{1e6 * s.fitted_std_siemens:.4g}", f"{s.z:+.1f}"]
        for s in fit.states
    ]  # fmt: skip
    lines = [
        f"{data.name}: {fit.n} measurements at {len(fit.states)} states, up to {1e6 * fit.g_max_siemens:.4g} uS",
        "",
        columns_table(["law", "BIC over the best"], laws),
        "",
        columns_table([fit.label, "", "95 %"], parameters),
        "",
        columns_table(["target uS", "n", "mean error uS", "std uS", "law's uS", "z"], states),
        "",
        _verdict(fit),
    ]
    if fit.device_share is not None:
        lines.append(f"{100 * fit.device_share:.0f} % of the variance is a device's own; the rest is new in each cycle")
    return "\n".join([*lines, *(f"note: {line}" for line in fit.warnings)])


def fit_record(data: Measurements, fit: Fit, toml: str) -> dict[str, Any]:
    """Return the fit as plain values."""
    return {
        "data": {"name": data.name, "sha256": data.digest, "n": fit.n},
        "law": fit.law.kind,
        "label": fit.label,
        "parameters": fit.parameters,
        "half_widths": {n: None if v != v else v for n, v in fit.half_widths.items()},
        "bic": fit.bic,
        "p_value": fit.p_value,
        "device_share": fit.device_share,
        "states": [
            {
                "target_siemens": s.target_siemens,
                "n": s.n,
                "mean_error_siemens": s.mean_error_siemens,
                "std_siemens": s.std_siemens,
                "fitted_std_siemens": s.fitted_std_siemens,
            }
            for s in fit.states
        ],
        "warnings": list(fit.warnings),
        "toml": toml,
    }


def stem_of(path: str | None, data: Measurements) -> str:
    """Return the name of the cell: that of the file it is written to, or of the data."""
    return Path(path or data.name).stem


def _shown(name: str, value: float) -> str:
    return f"{value:.4g}" if name == "error_rel" else f"{1e6 * value:.4g} uS"


def _verdict(fit: Fit) -> str:
    if fit.p_value is None:
        return "too few states beyond the law's parameters to test it"
    if fit.p_value < 0.001:
        return f"the law does not describe the data: p = {fit.p_value:.1g}; look at the states' z, and try --kind tabulated"
    return f"the law describes the data: p = {fit.p_value:.2g} (chi-square of the states' variances)"
