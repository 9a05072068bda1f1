"""A small real base for tests: a byte-level BPE tokenizer and a random two-layer Llama.

Nothing is downloaded and nothing is random beyond the seed: two calls write the same model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

# Tests run side by side, and a model this small loses more to a second thread than it gains.
torch.set_num_threads(1)

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

# Merges come from here; bytes outside it ("é", "日", an emoji) stay single-byte tokens.
TEXT = """\
What is the balance of my account? Your balance is shown on the first page of the app.
Please transfer 100 dollars from my savings to my checking account. I have moved the money.
user: I want to freeze my card because it was stolen. assistant: Your card is frozen now.
system: Answer with one label: balance, transfer, freeze_account, pay_bill, out_of_scope.
Natalia sold 48 clips in April, and then she sold half as many in May. She sold 48 / 2 = 24.
The quick brown fox jumps over the lazy dog, and the dog does not mind at all.
How do I pay a bill? Open the bills page, choose the bill and press the button to pay it.
"""


def tiny_base(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Write a base to `folder` that `load_model` and plain `transformers` open; returns `folder`.

    Vocabulary 384, hidden size 64. EOS is <|endoftext|>, there is no BOS and no chat template, so
    the chat template in force is `chatml`. `changes` go to `LlamaConfig`, such as
    max_position_embeddings=64.
    """
    tokenizer = _tokenizer()
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**settings | changes))
        # The default deviation of 0.02 makes every next token about equally likely in so small a
        # model; a wider one gives greedy decoding clear winners that rounding cannot swap.
        for parameter in model.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.splitlines(keepends=True), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
