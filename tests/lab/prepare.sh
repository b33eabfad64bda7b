#!/bin/sh
# Installs what the tests and the demo need, by package name, and the packages that are named.
# Nothing to do: nothing done.
set -eu
need="mmdebstrap systemd-container nftables iproute2 socat dbus e2fsprogs mandoc build-essential smbclient iputils-ping openipmi ipmitool fdisk lvm2 etcd-server etcd-client sanlock openssl $*"
missing=""
for package in $need; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed \
        || missing="$missing $package"
done
if [ -n "$missing" ]; then
    sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "installing$missing"
    $sudo apt-get update -q
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -qy --no-install-recommends $missing
    # Started by their package; the tests start their own.
    case "$missing" in *" sanlock"*) $sudo systemctl disable --now sanlock wdmd || true ;; esac
fi
command -v cargo-deb >/dev/null || cargo install cargo-deb --locked
