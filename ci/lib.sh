# Sourced by the scripts beside it: where the cache directory is, and how a machine that lacks a tool gets it.
# Everything lands below $CACHE; only `system_package` goes further, through the system's package manager.

set -euo pipefail

CI_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(dirname "$CI_DIR")
CACHE=${CI_CACHE_DIR:-$REPO/.cache} # not GOREGO_…: the node takes those names for fields of its configuration
mkdir -p "$CACHE"
CACHE=$(cd "$CACHE" && pwd)
export CI_CACHE_DIR=$CACHE
export PATH="$CACHE/tools/bin:$PATH"

# All that is said here goes to stderr: some scripts print a path on stdout.
say() { printf 'ci: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# system_package COMMAND PACKAGE: installs PACKAGE through apt if COMMAND is not there.
system_package() {
    command -v "$1" >/dev/null && return
    command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] ||
        die "'$1' is missing: please install it (Debian's package is $2)"
    say "installing Debian's package $2 (it brings $1) with apt-get"
    apt-get -qq update >&2
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$2" >&2
}

# python_tool COMMAND PACKAGE VERSION: a program that PyPI ships as a wheel, put into $CACHE/tools.
python_tool() {
    local tool=$CACHE/tools/bin/$1 stage
    [ -x "$tool" ] && return
    system_package python3 python3
    python3 -m pip --version >/dev/null 2>&1 || system_package pip3 python3-pip
    say "installing $1 (PyPI: $2 $3) into $CACHE/tools"
    stage=$(mktemp -d --tmpdir="$CACHE")
    # With --target pip leaves the system's own packages alone, also where they are "externally managed".
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
        --target "$stage" "$2==$3" >&2
    mkdir -p "$CACHE/tools/bin"
    mv "$stage/bin/$1" "$CACHE/tools/bin/.$1.$$" && mv "$CACHE/tools/bin/.$1.$$" "$tool"
    rm -rf "$stage"
}

# `just` runs the recipes. One that is on the machine already may be too old, so it is always ours.
ensure_just() { python_tool just rust-just 1.59.0; }

# cargo, rustfmt and clippy, at least as new as the workspace asks for; and the linker that they call.
ensure_rust() {
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO/Cargo.toml")
    system_package gcc gcc
    if [ -d "$CACHE/rust/cargo" ]; then
        export RUSTUP_HOME=$CACHE/rust/rustup CARGO_HOME=$CACHE/rust/cargo PATH="$CACHE/rust/cargo/bin:$PATH"
    fi
    have=$(cargo --version 2>/dev/null | cut -d' ' -f2 || true)
    if [ -n "$have" ] && [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n1)" = "$wanted" ]; then
        return
    fi
    say "cargo $wanted or newer is needed (found: ${have:-none}); installing Rust with rustup into $CACHE/rust"
    system_package curl curl
    export RUSTUP_HOME=$CACHE/rust/rustup CARGO_HOME=$CACHE/rust/cargo
    curl --proto '=https' --tlsv1.2 --silent --show-error --fail https://sh.rustup.rs |
        sh -s -- -y --quiet --no-modify-path --profile default >&2 || {
        rm -rf "$CACHE/rust"
        die "rustup could not be reached: please install Rust $wanted or newer and put cargo on the PATH"
    }
    export PATH="$CACHE/rust/cargo/bin:$PATH"
}
