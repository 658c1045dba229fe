# Tab completion for `python -m interp_lab` in bash: source this file.
# The console script has completion of its own (interp-lab -sc install=bash); this asks it.
export COMP_WORDBREAKS=${COMP_WORDBREAKS//=/}

_interp_lab_module() {
    case "$COMP_LINE" in *"-m interp_lab "*) ;; *) return ;; esac
    local line="interp-lab${COMP_LINE#*-m interp_lab}"
    local choices
    choices=$(COMP_LINE="$line" COMP_POINT=${#line} interp-lab -sc query=bash 2>/dev/null)
    mapfile -t COMPREPLY < <(compgen -W "$choices" -- "${line##* }")
}
complete -o default -o nospace -F _interp_lab_module python python3
