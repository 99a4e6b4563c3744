"""Error, time, energy and the best design of memristor and unreliable-memory DNN accelerators, from one description.

    from accelsim import Accelerator, load_embedded, place, predict

    network, samples = load_embedded("fashion_cnn")
    plan = place(network, Accelerator.preset("memse"), calibration=samples[:64])
    print(predict(plan, samples[64:320], seed=7))

Names are imported when they are first used, so that `import accelsim` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from accelsim._siblings import check_siblings
from accelsim._version import __version__

if TYPE_CHECKING:
    from accelsim.accelerator import Accelerator
    from accelsim.design import Design
    from accelsim.diagnosis.explain import explain
    from accelsim.exploring.explore import explore
    from accelsim.optimizer.optimize import optimize
    from accelsim.page.document import write_page
    from accelsim.placement import Plan, place
    from accelsim.prediction.predict import predict
    from accelsim.report.design_report import DesignReport
    from accelsim.report.diagnosis import Diagnosis
    from accelsim.report.evaluation import Evaluation
    from accelsim.report.explore_report import ExploreReport, ExploreTrial
    from accelsim.report.loading import load_report
    from accelsim.report.records import Agreement, ErrorReport, TrialReport
    from accelsim.report.sweep_point import SweepPoint
    from accelsim.report.sweep_report import SweepReport
    from accelsim.report.time_report import TimeReport
    from accelsim.sampling.monte_carlo import monte_carlo
    from accelsim.sweeping.axes import Span
    from accelsim.sweeping.sweep import sweep
    from accelsim.timing.evaluate import evaluate
    from accelsim.timing.simulate import simulate
    from accelsim.timing.systolic import systolic_cycles
    from devices.base.errors import (
        AccelsimError,
        DeadlockError,
        InfeasibleError,
        MemoryLimitError,
        NetworkError,
        RunFolderError,
        SamplesError,
        SpecError,
        UnsupportedMethodError,
        UnsupportedOperatorError,
    )
    from workloads.card import ModelCard
    from workloads.network import Network
    from workloads.onnx_reader import load_onnx
    from workloads.samples import Samples, load_samples
    from workloads.zoo import load_embedded

__all__ = [
    "Accelerator",
    "AccelsimError",
    "Agreement",
    "DeadlockError",
    "Design",
    "DesignReport",
    "Diagnosis",
    "ErrorReport",
    "Evaluation",
    "ExploreReport",
    "ExploreTrial",
    "InfeasibleError",
    "MemoryLimitError",
    "ModelCard",
    "Network",
    "NetworkError",
    "Plan",
    "RunFolderError",
    "Samples",
    "SamplesError",
    "Span",
    "SpecError",
    "SweepPoint",
    "SweepReport",
    "TimeReport",
    "TrialReport",
    "UnsupportedMethodError",
    "UnsupportedOperatorError",
    "__version__",
    "evaluate",
    "explain",
    "explore",
    "load_embedded",
    "load_onnx",
    "load_report",
    "load_samples",
    "monte_carlo",
    "optimize",
    "place",
    "predict",
    "simulate",
    "sweep",
    "systolic_cycles",
    "write_page",
]

_ERRORS = "devices.base.errors"
_HOME = {
    "Accelerator": "accelsim.accelerator",
    "AccelsimError": _ERRORS,
    "Agreement": "accelsim.report.records",
    "DeadlockError": _ERRORS,
    "Design": "accelsim.design",
    "DesignReport": "accelsim.report.design_report",
    "Diagnosis": "accelsim.report.diagnosis",
    "ErrorReport": "accelsim.report.records",
    "Evaluation": "accelsim.report.evaluation",
    "ExploreReport": "accelsim.report.explore_report",
    "ExploreTrial": "accelsim.report.explore_report",
    "InfeasibleError": _ERRORS,
    "MemoryLimitError": _ERRORS,
    "ModelCard": "workloads.card",
    "Network": "workloads.network",
    "NetworkError": _ERRORS,
    "Plan": "accelsim.placement",
    "RunFolderError": _ERRORS,
    "Samples": "workloads.samples",
    "SamplesError": _ERRORS,
    "Span": "accelsim.sweeping.axes",
    "SpecError": _ERRORS,
    "SweepPoint": "accelsim.report.sweep_point",
    "SweepReport": "accelsim.report.sweep_report",
    "TimeReport": "accelsim.report.time_report",
    "TrialReport": "accelsim.report.records",
    "UnsupportedMethodError": _ERRORS,
    "UnsupportedOperatorError": _ERRORS,
    "evaluate": "accelsim.timing.evaluate",
    "explain": "accelsim.diagnosis.explain",
    "explore": "accelsim.exploring.explore",
    "load_embedded": "workloads.zoo",
    "load_onnx": "workloads.onnx_reader",
    "load_report": "accelsim.report.loading",
    "load_samples": "workloads.samples",
    "monte_carlo": "accelsim.sampling.monte_carlo",
    "optimize": "accelsim.optimizer.optimize",
    "place": "accelsim.placement",
    "predict": "accelsim.prediction.predict",
    "simulate": "accelsim.timing.simulate",
    "sweep": "accelsim.sweeping.sweep",
    "systolic_cycles": "accelsim.timing.systolic",
    "write_page": "accelsim.page.document",
}
"""The module each name comes from. No submodule of `accelsim` itself may bear one of these names."""

check_siblings(__version__)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'accelsim' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
