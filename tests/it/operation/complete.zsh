# Prints the words that zsh offers after a command line.
# $1: the completion script; $2: the line.
zmodload zsh/zpty
folder=${1:h}/zsh
mkdir -p $folder
rm -f $folder/offered
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
zpty -w -n shell $2$'\t'
zpty -r shell output '*over*'
zpty -d shell
[[ ! -e $folder/offered ]] || cat $folder/offered
