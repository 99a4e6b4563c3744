"""Where an answer of a plan comes from."""

from accelsim.placement import Plan
from accelsim.report.origin import Provenance
from workloads.samples import Samples


def provenance_of(plan: Plan, samples: Samples, *, seed: int, output: str, reference: str, warnings: tuple[str, ...] = ()) -> Provenance:
    """Return the provenance of an answer about `plan` on `samples`."""
    return Provenance(
        seed=seed, network=plan.network.name, network_digest=plan.network.digest, spec_digest=plan.accelerator.digest,
        spec_toml=plan.accelerator.to_toml(), samples_digest=samples.digest, output=output, reference=reference,
        warnings=(*plan.network.notes, *samples.notes, *warnings),
    )
