# Prints the words that zsh offers after each of several command lines, and a line "end" after each.
# $1: the completion script; the others: the lines.
zmodload zsh/zpty
folder=${1:h}/zsh
mkdir -p $folder
cp $1 $folder/_threadsocks
cat > $folder/.zshrc <<'RC'
fpath=($ZDOTDIR $fpath)
autoload -Uz compinit
compinit -u -D
# Every completion function passes its matches to compadd.
compadd() {
    # These options store matches in an array and offer none.
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
        builtin compadd "$@"
        return
    fi
    local -a matches
    builtin compadd -A matches "$@"
    (( $#matches )) && print -l -- $matches >> $ZDOTDIR/offered
    builtin compadd "$@"
}
complete-words() {
    _main_complete
    print -n "over"
}
zle -C complete-words complete-word complete-words
bindkey '^I' complete-words
PROMPT=ready
RC
zpty shell env ZDOTDIR=$folder TERM=dumb zsh -i
zpty -r shell output '*ready*'
for line in ${@:2}; do
    rm -f $folder/offered
    # Ctrl-U removes the line before.
    zpty -w -n shell $'\C-u'"threadsocks $line"$'\t'
    zpty -r shell output '*over*'
    [[ ! -e $folder/offered ]] || cat $folder/offered
    print end
done
zpty -d shell
