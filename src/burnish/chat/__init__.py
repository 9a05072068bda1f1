"""The bridge: where words become tokens and tokens become words again.

Training, evaluation and serving all render through this package. Its laws, tested for every
template shipped (tests/test_chat.py) and checked on the base at hand by `check_laws` before a run:

1. Our rendering equals the tokenizer's own chat template, id for id. A base without a template gets
   a named default, stored in the checkpoint.
2. The rendered prompt is an id-prefix of the rendered prompt plus answer. Text is tokenised apart
   at the border of each assistant turn, at training and at serving alike, so no token can merge
   across it. (Where a tokenizer would merge, law 2 wins over law 1.)
3. Each trained turn ends with a trained stop token, and there is exactly one BOS where the base
   expects one.
4. parse(render(answer)) == answer, tool calls in the Hermes form included.
5. What is served is rendered by the same function, so served ids equal trained ids.

Only the template writes special tokens. Where a person or a program typed the name of one into a
turn, a tool's arguments or a raw text, it is tokenised as the letters it is made of, at training
and at serving alike; for such a row this stands over law 1.

    marks.py -> template.py -> turns.py -> render.py -> laws.py
                          \\-> parse.py ------------/
"""

from burnish.chat.laws import check_laws
from burnish.chat.parse import answer_text, parse
from burnish.chat.render import Rendered, render, render_many, render_prompt
from burnish.chat.template import TEMPLATES, ChatTemplate, choose_template

__all__ = [
    "TEMPLATES",
    "ChatTemplate",
    "Rendered",
    "answer_text",
    "check_laws",
    "choose_template",
    "parse",
    "render",
    "render_many",
    "render_prompt",
]
