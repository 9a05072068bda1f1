"""What a checkpoint was tuned on, for others to keep away from it."""

from __future__ import annotations

from pathlib import Path

from burnish.project import MANIFEST, read_manifest
from burnish.records.fingerprint import prompt_fingerprint
from burnish.records.mixture import read_mixture


def training_prompts(checkpoint: Path) -> frozenset[str] | None:
    """Fingerprints of the prompts a checkpoint was tuned on; None when its data cannot be found."""
    if not (checkpoint / MANIFEST).is_file():
        return None
    manifest = read_manifest(checkpoint)
    data = manifest["facts"].get("data")
    if data is None or not Path(data).exists():
        return None
    mixture = read_mixture(data)
    if not set(mixture.parents) <= set(manifest["parents"]):
        return None  # a file was changed since
    return frozenset(
        prompt_fingerprint(example.conversation)
        for source in mixture.sources
        for example in source.examples
    )
