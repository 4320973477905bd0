"""`igpt completion`: a script that has a shell complete verbs and options."""

from typing import Literal

from igpt.commands.precheck import GROUPS, Check
from igpt.system import TRAINER_VERBS, VERBS, parameters

BASH = """_igpt() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} known=""
  if [ "$COMP_CWORD" = 1 ]; then COMPREPLY=($(compgen -W "{verbs}" -- "$word")); return; fi
  case ${{COMP_WORDS[1]}} in
{cases}
  esac
  case $word in -*) COMPREPLY=($(compgen -W "$known" -- "$word"));; esac
}}
complete -o default -F _igpt igpt
"""
ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print a script that has the shell complete verbs and options; elsewhere it completes names of files, as ever.

    bash: `igpt completion bash > ~/.local/share/bash-completion/completions/igpt`. zsh: add
    `source <(igpt completion zsh)` to ~/.zshrc. fish: `igpt completion fish > ~/.config/fish/completions/igpt.fish`.

    Args:
        shell: bash, zsh or fish.
    """
    options = {verb: options_of(verb) for verb in VERBS}
    if shell == "fish":
        for verb, text in VERBS.items():
            print(f"complete -c igpt -n __fish_use_subcommand -a {verb} -d {text!r}")
            for name in options[verb]:
                print(f"complete -c igpt -n '__fish_seen_subcommand_from {verb}' -l {name}")
        return
    cases = "\n".join(f'  {verb}) known="{" ".join(f"--{name}" for name in options[verb])}";;' for verb in VERBS)
    print((ZSH if shell == "zsh" else "") + BASH.format(verbs=" ".join(VERBS), cases=cases), end="")


def options_of(verb: str) -> list[str]:
    """Names of the options of a verb, those of Lightning's trainer among them."""
    check = Check(verb, verb in TRAINER_VERBS)
    groups = GROUPS if check.trainer else {}
    inner = [f"{group}.{name}" for group in groups for name in parameters(groups[group]) or ()]
    return sorted({name for name in check.names if "-" not in name} | set(inner))
