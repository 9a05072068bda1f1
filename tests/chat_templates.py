"""Chat templates in the style of models in use, with what makes each of them hard.

They write what the originals write for the turns tried here; the vocabulary of `NAMES` is theirs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from burnish.chat import Rendered
from burnish.types import Conversation, Message
from tiny import tiny_base

NAMES = (
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)

_HERMES_TOOLS = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- '# Tools\\n\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
    {{- '\\n</tools>\\n\\nFor each call, return JSON within <tool_call></tool_call> tags:' }}
    {{- '\\n<tool_call>\\n{"name": <name>, "arguments": <arguments>}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
"""

_HERMES_CALLS = """\
        {%- for tool_call in message.tool_calls or [] %}
            {%- if CONDITION %}{{- '\\n' }}{%- endif %}
            {%- set call = tool_call.function %}
            {{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {{- call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
"""

_HERMES_RESULTS = """\
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
"""

# Adds a system prompt where there is none; results of tools are a user's turn; reads messages[0],
# so that it cannot render an empty conversation.
QWEN_2_5 = (
    _HERMES_TOOLS
    + """\
{%- if not tools and messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant' }}
        {%- if message.content or not message.tool_calls %}
            {{- '\\n' + message.content }}
        {%- endif %}
"""
    + _HERMES_CALLS.replace("CONDITION", "true")
    + _HERMES_RESULTS
    + """\
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
)

# Writes an empty thought before the last answer, and takes the thoughts out of answers that a later
# user's turn follows.
QWEN_3 = (
    _HERMES_TOOLS
    + """\
{%- set ns = namespace(last_query=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{%- set ns.last_query = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set content = message.content %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last_query and (loop.last or thought) %}
            {{- '<think>\\n' + thought + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- content }}
        {%- endif %}
"""
    + _HERMES_CALLS.replace("CONDITION", "content or not loop.first")
    + _HERMES_RESULTS
    + """\
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
)

# Trims every content; tools go before the first user's text; one call per turn, as bare JSON.
LLAMA_3_1 = """\
{{- '<|begin_of_text|>' }}
{%- if messages[0]['role'] == 'system' %}
    {{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + messages[0].content | trim }}
    {{- '<|eot_id|>' }}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
    {%- if message.tool_calls %}
        {%- if message.tool_calls | length != 1 %}
            {{- raise_exception('This model only supports single tool-calls at once!') }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
        {{- '{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}
        {{- '}<|eot_id|>' }}
    {%- elif message.role == 'tool' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + message.content | tojson }}
        {{- '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
        {%- if loop.first and tools %}
            {{- 'Given the following functions, respond with JSON.\\n\\n' }}
            {%- for tool in tools %}{{- tool | tojson(indent=4) }}{{- '\\n\\n' }}{%- endfor %}
        {%- endif %}
        {{- message.content | trim }}
        {{- '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

TEMPLATES_IN_USE = {"qwen 2.5": QWEN_2_5, "qwen 3": QWEN_3, "llama 3.1": LLAMA_3_1}


def chat_tokenizer(folder: Path) -> Any:
    """The tiny base's tokenizer with a BOS and the turn tokens of every template tried on it."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_base(folder))
    tokenizer.add_special_tokens(
        {"bos_token": "<bos>", "extra_special_tokens": [*NAMES, "<start_of_turn>", "<end_of_turn>"]}
    )
    return tokenizer


def dialogue(*turns: tuple[str, str], **fields: Any) -> Conversation:
    return Conversation(tuple(Message(role, content) for role, content in turns), **fields)


def trained_ids(row: Rendered) -> list[int]:
    return [i for i, w in zip(row.ids, row.weights, strict=True) if w]
