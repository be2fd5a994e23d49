"""Shell completion: ``fedmpi completion bash|zsh|fish``, and what can follow an option.

Click finds out which parameter is being completed; the scripts here hand it the line as typed, since bash cuts words
at ``:`` and ``=``, and no space follows what goes on (``rigl:``, ``every=``, a folder). Nothing slow is imported.
"""

import os

import click

from fedmpi import catalog
from fedmpi.plugins.entry import entry
from fedmpi.plugins.spec import choices, split
from fedmpi.core.errors import FedError, UserError

VARIABLE = "_FEDMPI_COMPLETE"
BASH = """\
_fedmpi_completion() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("$line")
        [[ $line != *[:=,/] ]] || compopt -o nospace
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" _FEDMPI_COMPLETE=bash_complete "$1" 2> /dev/null)
}
complete -o nosort -F _fedmpi_completion fedmpi
"""
ZSH = """\
#compdef fedmpi
_fedmpi_completion() {
    local line value typed="${(j: :)words[1,CURRENT]}"
    local -a ends shown open openly
    for line in "${(@f)$(COMP_LINE=$typed _FEDMPI_COMPLETE=zsh_complete $words[1] 2> /dev/null)}"; do
        value=${line%%$'\\t'*}
        [[ -n $value ]] || continue
        case $value in
            *[:=,/]) open+=("$value"); openly+=("${line/$'\\t'/  }") ;;
            *) ends+=("$value"); shown+=("${line/$'\\t'/  }") ;;
        esac
    done
    [[ -z $ends ]] || compadd -U -Q -l -d shown -a ends
    [[ -z $open ]] || compadd -U -Q -S '' -l -d openly -a open
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _fedmpi_completion "$@"; else compdef _fedmpi_completion fedmpi; fi
"""
FISH = """\
function _fedmpi_completion
    COMP_LINE=(commandline -cp) _FEDMPI_COMPLETE=fish_complete fedmpi 2> /dev/null
end
complete --no-files --keep-order --command fedmpi --arguments "(_fedmpi_completion)"
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


@click.command()
@click.argument("shell", type=click.Choice(list(SCRIPTS)))
def completion(shell):
    """Print the script that completes commands, options, names of parts and files in SHELL.

    \b
    eval "$(fedmpi completion bash)"       # in ~/.bashrc
    eval "$(fedmpi completion zsh)"        # in ~/.zshrc, after compinit
    fedmpi completion fish | source        # in ~/.config/fish/config.fish
    """
    click.echo(SCRIPTS[shell], nl=False)


def answer(cli, env=os.environ):
    """The candidates that a shell has asked for, a line each, with a tab and a help text where the shell shows it."""
    from click.shell_completion import ShellComplete, split_arg_string
    line, shell = env.get("COMP_LINE", ""), env[VARIABLE].partition("_")[0]
    words = split_arg_string(line)
    last = "" if line[-1:].isspace() or not words else words.pop()
    try:
        found = ShellComplete(cli, {}, "fedmpi", VARIABLE).get_completions(words[1:], last)
    except UserError:                                     # a line that is wrong already
        return ""
    typed = last.partition("=")[2] if last.startswith("--") and "=" in last else last
    lead = last[: len(last) - len(typed)]
    values = [(value, item.help) for item in found for value in (
        files()(None, None, typed) if item.type in ("file", "dir") else [item.value])]
    if shell != "fish" and not (line.count("'") % 2 or line.count('"') % 2):       # there it is quoted already
        values = [(value.replace(" ", "\\ "), text) for value, text in values]
    if shell == "bash":
        cut = max(typed.rfind(":"), typed.rfind("=")) + 1            # what bash takes for the word begins there
        return "\n".join(value[cut:] for value, _ in values)
    return "\n".join(f"{lead}{value}\t{text}" if text else lead + value for value, text in values)


def parts(kind):
    """What completes the value of an option whose parts are of ``kind``: names, then their options, then values."""
    def complete(context, parameter, typed):
        from click.shell_completion import CompletionItem
        table = catalog.KINDS[kind]
        name, rest = split(typed)
        if ":" not in typed:
            found = [CompletionItem(each, help=entry(table, each).line) for each in table
                     if each.startswith(typed)]
            more = [CompletionItem(typed + ":", help="its options")] if _options(table, typed) else []
            own = [CompletionItem(path) for path in files(".h5", ".hdf5")(None, None, typed)] * (kind == "dataset")
            return found + more + own
        if ":" in name and name.partition(":")[0] in table:
            name, rest = typed.split(":", 1)
        *given, last = rest.split(",")
        head = typed[: len(typed) - len(last)]
        known = _options(table, name)
        key, equals, value = last.partition("=")
        if not equals:
            done = {each.partition("=")[0] for each in given}
            return [CompletionItem(f"{head}{each}=", help=f"{p.default} usually")
                    for each, p in known.items() if each.startswith(key) and each not in done]
        values = _values(known[key]) if key in known else []
        return [CompletionItem(f"{head}{key}={each}") for each in values if each and each.startswith(value)]

    return complete


def names(context, parameter, typed):
    """Completes NAME of ``fedmpi list KIND NAME``."""
    return [name for name in catalog.KINDS.get(context.params.get("kind"), {}) if name.startswith(typed)]


def _options(table, name):
    """``{option: parameter}`` of a part; none of what is no part, or would have to be imported."""
    try:
        return entry(table, name, importing=False).options
    except FedError:
        return {}


def _values(parameter):
    """What an option can be, as texts: its choices, the usual one first; else what it usually is."""
    if isinstance(parameter.default, bool):
        return ["true", "false"]
    usual = str(parameter.default)
    others = [str(each) for each in choices(parameter)]
    return list(dict.fromkeys([usual, *others]))


def files(*suffixes):
    """What completes the path of a file whose name ends on one of ``suffixes`` (none: any), folders included."""
    def complete(context, parameter, typed):
        folder, start = os.path.split(typed)
        try:
            found = sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda each: each.name)
        except OSError:
            return []
        return [os.path.join(folder, each.name) + "/" * each.is_dir() for each in found
                if each.name.startswith(start) and (start or not each.name.startswith("."))
                and (each.is_dir() or not suffixes or each.name.endswith(suffixes))]

    return complete
