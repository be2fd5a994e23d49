"""Shell completion: ``fedmpi completion bash|zsh|fish``, and the candidates for an option's value.

Click finds the parameter to complete. The scripts here hand it the line as typed, since bash cuts
words at ``:`` and ``=``, and add no space behind an unfinished value (``rigl:``, ``every=``, a
folder). Nothing slow is imported.
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


@click.command(short_help="Print the script that completes commands in a shell.")
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
    shell, _, _ = env[VARIABLE].partition("_")
    words = split_arg_string(line)
    last = ""
    if words and not line[-1:].isspace():
        last = words.pop()
    completion_of = ShellComplete(cli, {}, "fedmpi", VARIABLE)
    try:
        items = completion_of.get_completions(words[1:], last)
    # The line is wrong already.
    except UserError:
        return ""
    typed = last
    # The value of --option=value is completed alone.
    if last.startswith("--") and "=" in last:
        _, _, typed = last.partition("=")
    candidates = _candidates(items, typed)
    # fish quotes by itself; inside quotes nothing needs it.
    if shell != "fish" and not _in_quotes(line):
        candidates = [(value.replace(" ", "\\ "), text) for value, text in candidates]
    if shell == "bash":
        return _bash_lines(candidates, typed)
    lead = last.removesuffix(typed)
    return _lines_with_help(candidates, lead)


def _bash_lines(candidates, typed):
    # For bash, the word begins behind these.
    last_colon = typed.rfind(":")
    last_equals = typed.rfind("=")
    begin = max(last_colon, last_equals) + 1
    return "\n".join(value[begin:] for value, _ in candidates)


def _lines_with_help(candidates, lead):
    """The candidates for zsh and fish, behind ``lead``, the text before a value."""
    lines = []
    for value, text in candidates:
        line = lead + value
        if text:
            line += f"\t{text}"
        lines.append(line)
    return "\n".join(lines)


def _candidates(items, typed):
    """``[(value, help text)]`` of click's items; an item for a file stands for all fitting
    files."""
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
    """A completion of the value of an option for parts of a ``kind``: names, then their options,
    then values."""
    def complete(context, parameter, typed):
        table = catalog.KINDS[kind]
        if ":" not in typed:
            return _parts_named(kind, table, typed)
        name, rest = split(typed)
        # A name of the catalogue's holds no colon: its options begin here.
        first, colon, behind = typed.partition(":")
        if ":" in name and first in table:
            name, rest = first, behind
        *finished, last = rest.split(",")
        head = typed.removesuffix(last)
        options = _options(table, name)
        return _options_typed(options, finished, last, head)

    return complete


def _parts_named(kind, table, typed):
    """Candidates for a name without options."""
    from click.shell_completion import CompletionItem
    items = []
    for name in table:
        if name.startswith(typed):
            line = entry(table, name).line
            items.append(CompletionItem(name, help=line))
    if _options(table, typed):
        items.append(CompletionItem(typed + ":", help="its options"))
    if kind == "dataset":
        complete_files = files(".h5", ".hdf5")
        paths = complete_files(None, None, typed)
        items += map(CompletionItem, paths)
    return items


def _options_typed(options, finished, last, head):
    """Candidates for the ``last`` option=value of a part, behind the ``finished`` ones; ``head`` is
    the text before."""
    from click.shell_completion import CompletionItem
    key, equals, value = last.partition("=")
    if equals:
        return _values_typed(options, key, value, head)
    used = {text.partition("=")[0] for text in finished}
    items = []
    for name, parameter in options.items():
        if name.startswith(key) and name not in used:
            usual = f"{parameter.default} usually"
            items.append(CompletionItem(f"{head}{name}=", help=usual))
    return items


def _values_typed(options, key, value, head):
    """Candidates for the value of option ``key``, of which ``value`` is typed."""
    from click.shell_completion import CompletionItem
    if key not in options:
        return []
    items = []
    for text in _values(options[key]):
        # A value may be empty: there is nothing to complete.
        if text and text.startswith(value):
            items.append(CompletionItem(f"{head}{key}={text}"))
    return items


def names(context, parameter, typed):
    """Completes NAME of ``fedmpi list KIND NAME``."""
    kind = context.params.get("kind")
    table = catalog.KINDS.get(kind, {})
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
    # The usual one may be among the choices.
    texts = [str(parameter.default)]
    texts += map(str, choices(parameter))
    return list(dict.fromkeys(texts))


def files(*suffixes):
    """A completion of the path of a file with one of ``suffixes`` (none: any), folders included."""
    def complete(context, parameter, typed):
        folder, start = os.path.split(typed)
        searched = os.path.expanduser(folder) or "."
        try:
            entries = sorted(os.scandir(searched), key=lambda item: item.name)
        except OSError:
            return []
        paths = []
        for item in entries:
            # Hidden files only if the user begins with a point.
            is_hidden = item.name.startswith(".") and not start
            fits = item.is_dir() or not suffixes or item.name.endswith(suffixes)
            if is_hidden or not fits or not item.name.startswith(start):
                continue
            path = os.path.join(folder, item.name)
            if item.is_dir():
                path += "/"
            paths.append(path)
        return paths

    return complete
