"""Opening a base or a checkpoint, whatever form it comes in, and saving one.

BASE is one of: `starter` (shipped with the package), a local folder, a Burnish checkpoint (full or
adapter), a .gguf file, or a hub id such as `Qwen/Qwen3-0.6B`.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from burnish.chat import ChatTemplate, choose_template
from burnish.errors import ModelError
from burnish.hashing import content_hash, file_hash
from burnish.nn.bases import HUB_ID, first_line, resolve_model
from burnish.nn.quantised import Quantisation, bitsandbytes_config, quantise
from burnish.project import MANIFEST, read_manifest

# Beside an adapter that was trained on a quantised base: {"quantisation": "int4"}.
QUANTISATION_FILE = "quantisation.json"

_WEIGHTS = ("*.safetensors", "*.bin")

# peft 0.21 asks for an attribute that transformers 5.23 renamed; users can do nothing about it.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
# Burnish draws its own bars and words its own errors.
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


class HeadAdapter(NamedTuple):
    """LoRA on the LM head: logits gain `scaling * (hidden @ down.T) @ up.T`."""

    down: torch.Tensor
    """A, (r, C)."""
    up: torch.Tensor
    """B, (V, r)."""
    scaling: float


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model ready to run, with the words' side of it."""

    model: Any
    """`transformers` causal LM, or a `peft` model around one, in eval mode."""
    tokenizer: Any
    template: ChatTemplate
    identity: str
    """The artefact's id, or `base-` and a hash of the weights for a model made elsewhere."""
    origin: str
    """As the user named it."""
    folder: Path
    """Where plain `transformers` opens the base from (for a .gguf: its converted copy)."""
    quantisation: Quantisation = "none"
    """In what form the frozen base is held."""

    @property
    def causal_lm(self) -> Any:
        """The `transformers` model itself, inside any adapter wrapper."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    @property
    def body(self) -> Any:
        """The decoder without the LM head: ids -> hidden states."""
        return getattr(self.causal_lm, self.causal_lm.base_model_prefix)

    @property
    def head(self) -> Any:
        """The LM head, a linear layer with weight (V, C) and perhaps a bias (V,).

        Where it carries LoRA these are its own, without `head_adapter`.
        """
        return self.causal_lm.get_output_embeddings()

    @property
    def head_adapter(self) -> HeadAdapter | None:
        """LoRA on the LM head, if there is one."""
        head = self.head
        if not hasattr(head, "lora_A"):
            return None
        [name] = head.active_adapters
        return HeadAdapter(
            head.lora_A[name].weight, head.lora_B[name].weight, float(head.scaling[name])
        )

    @property
    def softcap(self) -> float | None:
        """Gemma 2's final logit soft-capping, for models that have it."""
        cap: float | None = getattr(self.causal_lm.config, "final_logit_softcapping", None)
        return cap

    @property
    def vocabulary_size(self) -> int:
        """V, the number of rows of the LM head."""
        return int(self.head.weight.shape[0])

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids at which generation ends: the template's, and those the model came with."""
        eos = self.causal_lm.generation_config.eos_token_id
        own = eos if isinstance(eos, list) else [] if eos is None else [eos]
        return tuple(dict.fromkeys((*self.template.stop_ids, *own)))


def load_model(
    name: str,
    *,
    precision: str = "auto",
    template: str = "auto",
    trained: bool = False,
    quantisation: Quantisation | None = None,
) -> LoadedModel:
    """Open a base or checkpoint.

    Args:
        name: hub id, local folder, .gguf file, checkpoint, or `starter`.
        precision: `bf16`, `fp32`, or `auto` (bf16 where this machine multiplies it in hardware).
        template: see `chat.choose_template`.
        trained: keep an adapter's weights trainable instead of frozen.
        quantisation: hold the frozen base in 8 or 4 bits, see `nn.quantised`; None is as the
            adapter was trained, and `none` for a model without one.

    Raises:
        ModelError: it is no model, or an adapter whose base is gone.
        ConfigError: a base that cannot be quantised.
    """
    folder = resolve_model(name)
    dtype = compute_dtype(precision)
    quantisation = quantisation or _quantisation_of(folder)
    if (folder / "adapter_config.json").is_file():
        model = _open_adapter(folder, dtype, trained, quantisation)
    else:
        model = _open_folder(folder, name, dtype, quantisation)
    tokenizer = _open_tokenizer(folder, name)
    return LoadedModel(
        model=model.eval(),
        tokenizer=tokenizer,
        template=choose_template(tokenizer, template),
        identity=_identity(folder),
        origin=name,
        folder=folder,
        quantisation=quantisation,
    )


def load_template(name: str, template: str = "auto") -> ChatTemplate:
    """The words' side of a base or checkpoint without its weights: tokenizer and chat template.

    Raises:
        ModelError: it is no model, or has no tokenizer.
    """
    return choose_template(_open_tokenizer(resolve_model(name), name), template)


def compute_dtype(precision: str) -> torch.dtype:
    """The number format to compute in."""
    assert precision in ("auto", "bf16", "fp32"), precision
    if precision == "auto":
        return torch.bfloat16 if multiplies_bf16() else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def multiplies_bf16() -> bool:
    """Whether this machine multiplies bf16 in hardware (AVX512-BF16, AMX, or a CUDA device)."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def device() -> torch.device:
    """Where models run: the CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def save_words_side(model: LoadedModel, folder: Path) -> None:
    """Write tokenizer, chat template and generation settings, so that what serves is what trained.

    generation_config.json lists every stop id that was trained: servers stop on it alone
    (meta-llama/llama-cookbook#640).
    """
    model.tokenizer.chat_template = model.template.source
    model.tokenizer.save_pretrained(folder)
    generation = GenerationConfig.from_model_config(model.causal_lm.config)
    generation.eos_token_id = list(model.stop_ids)
    generation.pad_token_id = model.tokenizer.pad_token_id
    generation.save_pretrained(folder)


def _open_folder(folder: Path, name: str, dtype: torch.dtype, quantisation: Quantisation) -> Any:
    settings: dict[str, Any] = {"dtype": dtype}
    if quantisation != "none" and device().type == "cuda":
        settings |= {
            "quantization_config": bitsandbytes_config(quantisation, dtype),
            "device_map": {"": device()},
        }
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **settings
        )
    except Exception as error:
        # transformers, safetensors and json each raise their own kinds on a broken model folder.
        raise ModelError(
            f"cannot be opened as a causal language model: {first_line(error)}",
            where=name,
            do="check that config.json and the weights are complete and of a decoder model",
        ) from error
    if "quantization_config" in settings:
        return model
    if quantisation != "none":
        quantise(model, quantisation)
    return model.to(device())


def _open_adapter(
    folder: Path, dtype: torch.dtype, trained: bool, quantisation: Quantisation
) -> Any:
    from peft import PeftConfig, PeftModel

    # The techniques stand on this module, so they can be imported only once it is there.
    from burnish.nn.techniques.blocks import peft_warnings_understood
    from burnish.nn.techniques.virtual import install_virtual_tokens

    config = PeftConfig.from_pretrained(str(folder))
    base = config.base_model_name_or_path
    if not Path(base).is_dir() and not HUB_ID.match(base):
        raise ModelError(
            f"is an adapter whose base is gone: {base}",
            where=str(folder),
            do="put the base back there, or edit base_model_name_or_path in adapter_config.json",
        )
    model = _open_folder(resolve_model(base), base, dtype, quantisation)
    with peft_warnings_understood():
        adapted = PeftModel.from_pretrained(
            model,
            str(folder),
            is_trainable=trained and not config.is_prompt_learning,
            autocast_adapter_dtype=False,
        )
    if config.is_prompt_learning:
        install_virtual_tokens(adapted)
        if trained:  # which PEFT refuses to do at opening
            adapted.peft_config["default"].inference_mode = False
            adapted.prompt_encoder.requires_grad_(True)
    return adapted


def _quantisation_of(folder: Path) -> Quantisation:
    """What the base of an adapter was held in while the adapter was trained."""
    path = folder / QUANTISATION_FILE
    if not path.is_file():
        return "none"
    recorded: Quantisation = json.loads(path.read_text(encoding="utf-8"))["quantisation"]
    return recorded


def _open_tokenizer(folder: Path, name: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ModelError(
            f"its tokenizer cannot be opened: {first_line(error)}",
            where=name,
            do="put tokenizer.json and tokenizer_config.json beside the weights",
        ) from error


def _identity(folder: Path) -> str:
    if (folder / MANIFEST).is_file():
        return str(read_manifest(folder)["id"])
    files = {"config.json", *(p.name for pattern in _WEIGHTS for p in folder.glob(pattern))}
    hashes = {name: file_hash(folder / name) for name in files if (folder / name).is_file()}
    return f"base-{content_hash(hashes)[:16]}"
