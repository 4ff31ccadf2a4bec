#!/bin/sh
# Builds the BPF object reproducibly: the same clang gives the same bytes in
# any folder.
#
#   build.sh OUTPUT   writes the object to OUTPUT
#   build.sh --update writes the checked-in object
#   build.sh --check  compares a fresh build with the checked-in object
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
clang=${TRIREME_BPF_CLANG:-clang-19}
strip=${TRIREME_BPF_STRIP:-llvm-strip-${clang##*-}}
prebuilt=$here/prebuilt/trireme.bpf.o

build() {
    multiarch=$("${CC:-gcc}" -print-multiarch)
    include=$(pkg-config --variable=includedir libbpf)
    (cd "$here/src" && "$clang" -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror \
        -ffile-prefix-map="$PWD"=. -I"$include/$multiarch" -c trireme.bpf.c -o "$1")
    "$strip" -g "$1"
}

case ${1:-} in
--update)
    build "$prebuilt"
    ;;
--check)
    fresh=$(mktemp)
    trap 'rm -f "$fresh"' EXIT
    build "$fresh"
    if ! cmp "$fresh" "$prebuilt"; then
        echo "prebuilt/trireme.bpf.o is not what $clang makes of src: run build.sh --update" >&2
        exit 1
    fi
    ;;
"" | -*)
    echo "usage: $0 OUTPUT | --update | --check" >&2
    exit 2
    ;;
*)
    case $1 in /*) build "$1" ;; *) build "$PWD/$1" ;; esac
    ;;
esac
