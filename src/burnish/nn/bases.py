"""Which folder a BASE is; told without torch, so that a misspelt name is refused at once."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from burnish.errors import ModelError

STARTER = "starter"
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
"""An owner and a name, as the hub has them."""


def resolve_model(name: str) -> Path:
    """The folder that plain `transformers` opens for a BASE; converts a .gguf once.

    Raises:
        ModelError: nothing there, or not a model.
    """
    path = Path(name)
    if name == STARTER and not path.exists():
        path = Path(str(resources.files("burnish") / "starter"))
        if not (path / "config.json").is_file():
            raise ModelError("this installation carries no starter base", do="reinstall burnish")
    if path.is_file() and path.suffix == ".gguf":
        from burnish.nn.gguf import opened_gguf

        return opened_gguf(path)
    if path.is_dir():
        if not any((path / f).is_file() for f in ("config.json", "adapter_config.json")):
            found = ", ".join(sorted(p.name for p in path.iterdir())[:6]) or "nothing"
            raise ModelError(
                f"is no model: neither config.json nor adapter_config.json in it (found: {found})",
                where=name,
                do="give the folder that holds config.json and the weights",
            )
        return path
    if path.exists():
        raise ModelError("is a file but no .gguf", where=name, do="give a folder or a .gguf file")
    if HUB_ID.match(name) and not name.endswith(".gguf"):
        return _from_hub(name)
    raise ModelError(
        "there is no such base",
        where=name,
        do="give a hub id (owner/name), a model folder, a .gguf file, a checkpoint, or `starter`",
    )


def _from_hub(name: str) -> Path:
    """Download a model from the hub (or find it in the hub's cache) and return its folder."""
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        # Offline, gated, misspelt, no space: the hub's own words say which.
        raise ModelError(
            f"cannot be fetched from the hub: {first_line(error)}",
            where=name,
            do="check the name and the network, sign in with `hf auth login` for a gated model, or "
            "give a local folder",
        ) from error


def first_line(error: Exception) -> str:
    """What an error of another library says, in one line."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
