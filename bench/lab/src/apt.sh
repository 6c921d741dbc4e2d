#!/bin/sh
# usage: apt.sh CACHE PACKAGE..  As root. Installs packages without starting any service of theirs, now or at the next boot.
set -eu
cache=$1; shift
policy=/usr/sbin/policy-rc.d
saved=$policy.rxline-lab
units="openafs-client openafs-fileserver krb5-kdc krb5-admin-server"

# Put back what was there before, whichever way this ends; also after an earlier run that was killed.
restore() {
    if [ -e "$saved" ] || [ -L "$saved" ]; then mv -f "$saved" "$policy"
    elif grep -qs '^# rxline lab$' "$policy"; then rm -f "$policy"
    fi
}
trap restore EXIT
trap 'exit 130' INT TERM HUP
restore
if [ -e "$policy" ] || [ -L "$policy" ]; then mv "$policy" "$saved"; fi
printf '#!/bin/sh\n# rxline lab\nexit 101\n' > "$policy"
chmod 755 "$policy"

known=""
for unit in $units; do
    if dpkg-query -W -f '${db:Status-Status}' "$unit" 2>/dev/null | grep -q '^installed$'; then known="$known $unit"; fi
done

export DEBIAN_FRONTEND=noninteractive
mkdir -p "$cache/partial"
apt="apt-get -q -y -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 -o Acquire::http::Timeout=30
    -o Dir::Cache::Archives=$cache -o APT::Keep-Downloaded-Packages=true -o APT::Sandbox::User=root"
$apt update
$apt install --no-install-recommends -o Dpkg::Options::=--force-confold "$@"

# Services that came with this are not wanted at the next boot either.
if command -v systemctl > /dev/null; then
    for unit in $units; do
        case "$known " in *" $unit "*) ;; *) systemctl disable --quiet "$unit" 2> /dev/null || true ;; esac
    done
fi
