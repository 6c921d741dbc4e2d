#!/bin/sh
# usage: kit.sh FOLDER SUITE PACKAGE.. -- META..
# Unpacks packages with everything they need that is not installed, the PACKAGEs as new as SUITE has them, and of each META
# package the one that it depends on, into FOLDER/root. Installs nothing: apt gets lists and a cache of its own under FOLDER.
set -eu
folder=$1; suite=$2; shift 2
packages=""
while [ "$1" != -- ]; do packages="$packages $1"; shift; done
shift
. /etc/os-release
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
rm -rf "$folder"
mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/root"

# The mirrors that this machine uses for its own release, and SUITE beside that.
apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' | sort -u |
while read -r uri release component; do
    [ "$component" = main ] || continue
    line="deb [signed-by=$keyring] $uri"
    case $release in
    "$VERSION_CODENAME") echo "$line $release main"; echo "$line $suite main" ;;
    "$VERSION_CODENAME-updates" | "$VERSION_CODENAME-security") echo "$line $release main" ;;
    esac
done > "$folder/sources.list"
[ -s "$folder/sources.list" ] || { echo "apt's sources name no mirror of Debian $VERSION_CODENAME" >&2; exit 1; }

export DEBIAN_FRONTEND=noninteractive
options="-q -o Dir::Etc::sourcelist=$folder/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$folder/lists
    -o Dir::Cache=$folder/cache -o Acquire::Retries=3 -o Acquire::http::Timeout=30 -o APT::Sandbox::User=root
    -o APT::Keep-Downloaded-Packages=true -o Debug::NoLocking=true"
apt-get $options update
apt-get $options -y --download-only --no-install-recommends --reinstall -t "$suite" install $packages
for meta in "$@"; do
    package=$(apt-cache $options depends --important "$meta" | sed -n 's/^ *Depends: //p' | head -n 1)
    [ -n "$package" ] || { echo "apt knows no package that $meta depends on" >&2; exit 1; }
    (cd "$folder/cache/archives" && apt-get $options download "$package")
done
for package in "$folder"/cache/archives/*.deb; do
    echo "unpacking ${package##*/}"
    dpkg-deb -x "$package" "$folder/root"
done
rm -rf "$folder/cache" "$folder/lists"
touch "$folder/complete"
