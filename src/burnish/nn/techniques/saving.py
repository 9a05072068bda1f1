"""Saving what a technique trained, in the format that plain `transformers` or `peft` opens."""

from __future__ import annotations

import json
from pathlib import Path

from burnish.nn.models import QUANTISATION_FILE, LoadedModel
from burnish.nn.techniques.pissa import convert_saved


def save_weights(model: LoadedModel, folder: Path) -> None:
    """Write the model's weights, or only its adapter's, to `folder`.

    An adapter goes out as adapter_config.json and adapter_model.safetensors, which plain `peft`
    opens on the original base (bottleneck adapters after `import burnish.nn.techniques`). If the
    base was quantised, a file beside them has `load_model` quantise it alike.
    """
    if not hasattr(model.model, "peft_config"):
        model.model.save_pretrained(folder)
        return
    # Without the flag PEFT would add the whole embedding to an adapter on the LM head.
    model.model.save_pretrained(folder, save_embedding_layers=False)
    convert_saved(model.model, folder)
    if model.quantisation != "none":
        text = json.dumps({"quantisation": model.quantisation})
        (folder / QUANTISATION_FILE).write_text(text + "\n", encoding="utf-8")
