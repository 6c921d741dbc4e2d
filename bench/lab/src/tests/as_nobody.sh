#!/bin/sh
# usage: as_nobody.sh WORKSPACE TARGET SYSROOT CARGO_HOME COMMAND..  As root, in a private mount namespace.
# Shows the four folders under /mnt, all but TARGET read-only, and runs COMMAND there.
set -eu
workspace=$1 target=$2 sysroot=$3 cargo_home=$4; shift 4
mount -t tmpfs -o mode=755 rxl-nobody /mnt
show() {
    mkdir "/mnt/$1"
    mount --bind "$2" "/mnt/$1"
    if [ "$3" = ro ]; then mount -o remount,bind,ro "/mnt/$1"; fi
}
show workspace "$workspace" ro
show sysroot "$sysroot" ro
show cargo "$cargo_home" ro
show target "$target" rw
mkdir -m 777 /mnt/home
cd /mnt/workspace
# Nothing of cargo's own environment: this is a user who types `cargo test --workspace`.
exec env -i PATH=/mnt/sysroot/bin:/usr/bin:/bin HOME=/mnt/home LANG=C.UTF-8 TERM=dumb \
    CARGO_HOME=/mnt/cargo CARGO_TARGET_DIR=/mnt/target "$@"
