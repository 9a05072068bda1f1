"""Opening a .gguf base: converted once into a folder that plain `transformers` and `peft` open."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from burnish.errors import ModelError
from burnish.files import replaced_folder
from burnish.hashing import file_hash
from burnish.progress import progress_bar


def cache_folder() -> Path:
    """Where converted bases are kept; `BURNISH_CACHE` moves it."""
    return Path(os.environ.get("BURNISH_CACHE", "~/.cache/burnish")).expanduser()


def opened_gguf(path: Path) -> Path:
    """The folder with the file's weights dequantised to fp32 (no rounding added), made once.

    An adapter trained on the base names this folder, so it opens in `peft` without Burnish.

    Raises:
        ModelError: not a GGUF file, or an architecture `transformers` cannot read from GGUF.
    """
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(
                "is no GGUF file (it does not begin with the bytes GGUF)",
                where=str(path),
                do="download it again; a page saved in its place is the usual cause",
            )
    folder = cache_folder() / "gguf" / file_hash(path)[:16]
    if (folder / "config.json").is_file():
        return folder
    with replaced_folder(folder) as temporary:
        _convert(path, temporary)
    return folder


def _convert(path: Path, folder: Path) -> None:
    with progress_bar(f"converting {path.name}, once", unit="part", total=3) as bar:
        tokenizer = _read(AutoTokenizer, path)
        bar.update()
        model = _read(AutoModelForCausalLM, path, dtype=torch.float32)
        bar.update()
        config = model.config.to_dict()
        # The weights are plain numbers now; a quantisation entry would make loaders look for a
        # .gguf.
        config.pop("quantization_config", None)
        config["architectures"] = [type(model).__name__]
        (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        model.generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        save_file(_distinct(model.state_dict()), folder / "model.safetensors", {"format": "pt"})
        bar.update()


def _read(kind: Any, path: Path, **settings: Any) -> Any:
    """A model or tokenizer from the file, through `transformers`."""
    try:
        return kind.from_pretrained(path.parent, gguf_file=path.name, **settings)
    except Exception as error:
        raise ModelError(
            f"cannot be read as a model: {str(error).splitlines()[0]}",
            where=str(path),
            do="`transformers` must support this architecture in GGUF; otherwise give the original "
            "model folder",
        ) from error


def _distinct(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state without second names of tied weights; loading ties them again."""
    seen: set[int] = set()
    distinct = {}
    for name, tensor in state.items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            distinct[name] = tensor.contiguous()
    return distinct
