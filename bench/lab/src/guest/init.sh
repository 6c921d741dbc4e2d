#!/bin/busybox sh
# The guest's first process. The host writes a number on the second serial line; the script of that name in the share is run,
# what it prints stays beside it, and its exit status goes back with the number.
export PATH=/bin:/usr/bin:/usr/sbin:/sbin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/hugepages /dev/shm
for at in /dev/shm /tmp /run; do mount -t tmpfs tmpfs $at; done
hostname guest
# DPDK loads no driver from below a folder that everybody may write to.
chmod 755 /

# Modules with what they need, in the order that the host worked out.
load() {
    for wanted in "$@"; do
        while read -r module; do
            grep -q "^$module " /proc/modules || insmod "/modules/$module.ko" || return 1
        done < "/modules/$wanted.order" || return 1
    done
}

load 9pnet_virtio && load 9p
options=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o $options,ro,cache=loose usr /usr
mount -t 9p -o $options share /share
cp /share/ld.so.cache /etc/
ip link set lo up

line=/dev/ttyS1
stty -F $line raw -echo
exec 3< $line 4> $line
echo "ready" >&4
while read -r number <&3; do
    (. "/share/$number.sh") < /dev/null > "/share/$number.out" 2>&1 3<&- 4>&-
    status=$?
    echo "$number $status" >&4
done
