"""``atoma completion SHELL``: prints the code with which a shell completes commands, options and their values."""

# pyright: reportPrivateUsage=false, reportUnknownMemberType=false
# argparse has no public way to ask a parser what it takes

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from atoma.cli.reports import Exit

_BASH = """\
_atoma() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} path=atoma word at
  for ((at = 1; at < COMP_CWORD; at++)); do
    word="$path ${{COMP_WORDS[at]}}"
    case "$word" in
      {paths}) path=$word ;;
    esac
  done
  local words=
  case "$path $prev" in
{values}
    *) case "$path" in
{commands}
    esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _atoma atoma
"""
_LINES = {
    "bash": 'eval "$(atoma completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(atoma completion zsh)" in ~/.zshrc',
    "fish": "atoma completion fish | source in ~/.config/fish/config.fish",
}


@dataclass(frozen=True, slots=True)
class _Command:
    """A command: the words that may follow it, each with its help text, and the values of its options."""

    path: str
    words: Mapping[str, str]
    values: Mapping[str, tuple[str, ...]]


def add_command(command: argparse.ArgumentParser, whole: Callable[[], argparse.ArgumentParser]) -> None:
    """Say what the command takes; ``whole`` gives everything that is to be completed."""
    command.description = "Print the code with which a shell completes commands.  " + "; ".join(_LINES.values()) + "."
    command.add_argument("shell", choices=tuple(_LINES), help="your shell")

    def run(options: argparse.Namespace) -> Exit:
        commands = list(_commands(whole(), "atoma"))
        print(_fish(commands) if options.shell == "fish" else _bash(commands, options.shell), end="")
        return Exit.DONE

    command.set_defaults(run=run)


def _commands(parser: argparse.ArgumentParser, path: str) -> Iterator[_Command]:
    words: dict[str, str] = {}
    values: dict[str, tuple[str, ...]] = {}
    below: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            told = {choice.dest: choice.help or "" for choice in action._choices_actions}
            words |= {name: told.get(name, "") for name in action.choices}
            below += action.choices.items()
        elif action.option_strings:
            words[action.option_strings[-1]] = (action.help or "").partition(";")[0]
            if action.choices:
                values[action.option_strings[-1]] = tuple(map(str, action.choices))
        elif action.choices:
            words |= dict.fromkeys(map(str, action.choices), action.help or "")
    yield _Command(path, words, values)
    for name, child in below:
        yield from _commands(child, f"{path} {name}")


def _bash(commands: list[_Command], shell: str) -> str:
    offered = [f'    "{each.path} {option}") words="{" ".join(words)}" ;;' for each in commands for option, words in each.values.items()]  # fmt: skip
    script = _BASH.format(
        paths=" | ".join(f'"{each.path}"' for each in commands if each.path != "atoma"),
        values="\n".join(offered),
        commands="\n".join(f'      "{each.path}") words="{" ".join(each.words)}" ;;' for each in commands),
    )
    return script if shell == "bash" else f"autoload -U +X bashcompinit && bashcompinit\n{script}"


def _fish(commands: list[_Command]) -> str:
    lines: list[str] = []
    for each in commands:
        inside = each.path.split()[1:]
        seen = [f"__fish_seen_subcommand_from {name}" for name in inside]
        when = shlex.quote("; and ".join(seen) if seen else "__fish_use_subcommand")
        for word, told in each.words.items():
            what = f"-l {word[2:]}" if word.startswith("--") else f"-a {word}"
            offered = f" -x -a {shlex.quote(' '.join(each.values[word]))}" if word in each.values else ""
            lines.append(f"complete -c atoma -n {when} {what}{offered} -d {shlex.quote(told)}")
    return "\n".join(lines) + "\n"
