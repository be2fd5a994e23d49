"""Shell completion: ``fedmpi completion bash|zsh|fish``, and the candidates for an option's value.

Click finds the parameter to complete. The scripts here hand it the line as typed, since bash cuts words at ``:`` and
``=``, and add no space behind an unfinished value (``rigl:``, ``every=``, a folder). Nothing slow is imported.
"""

import os

import click

from fedmpi import catalog
from fedmpi.core.errors import FedError, UserError
from fedmpi.plugins.entry import entry
from fedmpi.plugins.spec import choices, split

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
    """The candidates for a shell, a line each; for zsh and fish with a tab and a help text."""
    from click.shell_completion import ShellComplete, split_arg_string
    line = env.get("COMP_LINE", "")
    shell = env[VARIABLE].partition("_")[0]
    words = split_arg_string(line)
    last = ""
    if words and not line[-1:].isspace():
        last = words.pop()
    try:
        items = ShellComplete(cli, {}, "fedmpi", VARIABLE).get_completions(words[1:], last)
    # The line is wrong already.
    except UserError:
        return ""
    typed = last
    if last.startswith("--") and "=" in last:
        typed = last.partition("=")[2]
    values = _candidates(items, typed)
    # fish quotes by itself; inside quotes nothing needs it.
    if shell != "fish" and not _in_quotes(line):
        values = [(value.replace(" ", "\\ "), text) for value, text in values]
    if shell == "bash":
        # For bash, the word begins behind these.
        cut = max(typed.rfind(":"), typed.rfind("=")) + 1
        return "\n".join(value[cut:] for value, _ in values)
    lead = last[: len(last) - len(typed)]
    return "\n".join(f"{lead}{value}\t{text}" if text else lead + value for value, text in values)


def _candidates(items, typed):
    """``[(value, help text)]`` of click's items; an item for a file stands for all fitting files."""
    values = []
    for item in items:
        if item.type in ("file", "dir"):
            values += [(path, item.help) for path in files()(None, None, typed)]
        else:
            values.append((item.value, item.help))
    return values


def _in_quotes(line):
    return line.count("'") % 2 == 1 or line.count('"') % 2 == 1


def parts(kind):
    """A completion of the value of an option for parts of a ``kind``: names, then their options, then values."""
    def complete(context, parameter, typed):
        table = catalog.KINDS[kind]
        if ":" not in typed:
            return _parts_named(kind, table, typed)
        name, rest = split(typed)
        # A name of the catalogue's holds no colon: its options begin here.
        if ":" in name and name.partition(":")[0] in table:
            name, rest = typed.split(":", 1)
        *finished, last = rest.split(",")
        head = typed[: len(typed) - len(last)]
        return _options_typed(_options(table, name), finished, last, head)

    return complete


def _parts_named(kind, table, typed):
    """Candidates for a name without options."""
    from click.shell_completion import CompletionItem
    items = [CompletionItem(name, help=entry(table, name).line) for name in table if name.startswith(typed)]
    if _options(table, typed):
        items.append(CompletionItem(typed + ":", help="its options"))
    if kind == "dataset":
        items += [CompletionItem(path) for path in files(".h5", ".hdf5")(None, None, typed)]
    return items


def _options_typed(options, finished, last, head):
    """Candidates for the ``last`` option=value of a part, behind the ``finished`` ones; ``head`` is the text before."""
    from click.shell_completion import CompletionItem
    key, equals, value = last.partition("=")
    if equals:
        values = _values(options[key]) if key in options else []
        return [CompletionItem(f"{head}{key}={text}") for text in values if text and text.startswith(value)]
    used = {text.partition("=")[0] for text in finished}
    items = []
    for name, parameter in options.items():
        if name.startswith(key) and name not in used:
            items.append(CompletionItem(f"{head}{name}=", help=f"{parameter.default} usually"))
    return items


def names(context, parameter, typed):
    """Completes NAME of ``fedmpi list KIND NAME``."""
    table = catalog.KINDS.get(context.params.get("kind"), {})
    return [name for name in table if name.startswith(typed)]


def _options(table, name):
    """``{option: parameter}`` of a part; empty for an unknown part, or one to be imported first."""
    try:
        return entry(table, name, importing=False).options
    except FedError:
        return {}


def _values(parameter):
    """The values of an option, as texts: the usual one first, then its choices."""
    if isinstance(parameter.default, bool):
        return ["true", "false"]
    usual = str(parameter.default)
    others = [str(choice) for choice in choices(parameter)]
    return list(dict.fromkeys([usual, *others]))


def files(*suffixes):
    """A completion of the path of a file with one of ``suffixes`` (none: any), folders included."""
    def complete(context, parameter, typed):
        folder, start = os.path.split(typed)
        try:
            entries = sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda item: item.name)
        except OSError:
            return []
        paths = []
        for item in entries:
            # Hidden files only if the user begins with a point.
            is_hidden = item.name.startswith(".") and not start
            fits = item.is_dir() or not suffixes or item.name.endswith(suffixes)
            if fits and item.name.startswith(start) and not is_hidden:
                path = os.path.join(folder, item.name)
                paths.append(path + "/" if item.is_dir() else path)
        return paths

    return complete
