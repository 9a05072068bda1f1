"""The group of commands, and how errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from burnish import __version__
from burnish.cli import labels, tensors, users, words
from burnish.errors import ResourceError, UserError

_TRAIN_MODULES = {"torch", "transformers", "peft", "safetensors", "tokenizers", "gguf"}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="burnish")
def burnish() -> None:
    """Supervised fine-tuning as one system: records in, a better model out, with the proof.

    Start with `burnish demo`, or `burnish tune data.jsonl --base starter --out tuned`.
    """


for command in (*words.COMMANDS, *labels.COMMANDS, *users.COMMANDS, *tensors.COMMANDS):
    burnish.add_command(command)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 2 the user's fault (one message), 1 ours (a traceback)."""
    try:
        burnish.main(args=arguments, prog_name="burnish", standalone_mode=False)
        # What is still in the buffer meets a pipe without a reader here, not when Python ends.
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.exceptions.Abort):
        _say("stopped by Ctrl-C\n  → the same command goes on where it was")
        sys.exit(2)
    except BrokenPipeError:
        _leave_quietly()
    except SystemExit as end:
        # Click and rich, whose output nobody reads any more. (Uvicorn's failed start is 3.)
        if end.code != 1:
            raise
        _leave_quietly()
    except UserError as error:
        _say(str(error))
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name not in _TRAIN_MODULES:
            raise
        _say(
            str(
                ResourceError(
                    f"this command needs {error.name}, which is not installed",
                    do="pip install 'burnish[train]'",
                )
            )
        )
        sys.exit(2)
    sys.exit(0)


def _leave_quietly() -> NoReturn:
    """The reader of our output has left (| head): that is no failure, and nobody is to be told."""
    # Else Python flushes what is left into the broken pipe when it ends, and says so.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(0)


def _say(message: str) -> None:
    click.echo(click.style("error: ", fg="red", bold=True) + message, err=True)
