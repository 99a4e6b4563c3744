"""Where an answer comes from."""

from dataclasses import dataclass

from accelsim._version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where an answer comes from: what must be the same for it to be the same again."""

    seed: int
    network: str
    network_digest: str
    spec_digest: str
    spec_toml: str
    samples_digest: str
    output: str
    reference: str
    warnings: tuple[str, ...] = ()
    version: str = __version__
