# Shared by the scripts beside it; sourced, not run. Sets up what they need and is quick when it is all there.
#
# Everything fetched goes to one cache, ${XDG_CACHE_HOME:-~/.cache}/blockwright: apt's state of an ordinary user
# (apt/), Debian packages unpacked (root/), and a wrapper for each program in them (bin/). With root, apt installs
# instead, but for the kernel and the boot loader, which are only ever unpacked.
#
# shellcheck shell=bash

set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${BLOCKWRIGHT_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/blockwright}
venv=${BLOCKWRIGHT_VENV:-$repo/.venv}
build=${BLOCKWRIGHT_BUILD:-$repo/build}
if [ ! -w "$repo" ]; then # somebody else's checkout
    venv=${BLOCKWRIGHT_VENV:-$cache/venv}
    build=${BLOCKWRIGHT_BUILD:-$cache/build}
fi
# Tests that run beside the others: two halves of about the same length, one for each of two processors.
# shellcheck disable=SC2034 # for who sources this
by_themselves=(tests/unit tests/conformance tests/fuzz tests/darwin)
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:$cache/bin"

say() { printf '==> %s\n' "$*" >&2; }
note() { printf '    %s\n' "$*" >&2; }
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# quietly NAME COMMAND...: runs it, and shows what it printed only if it fails.
quietly() {
    local log=$cache/log/$1.log
    shift
    mkdir -p "$cache/log"
    if ! "$@" >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        return 1
    fi
}

# ---------------------------------------------------------------------------------------------- Debian's packages

on_debian() { have apt-get && have dpkg-deb; }

# with_root COMMAND...: runs it as root, where that needs no password; fails otherwise.
with_root() {
    if [ "$(id -u)" = 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    elif have sudo && sudo -n true 2>/dev/null; then
        sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
    else
        return 1
    fi
}
can_be_root() { [ "$(id -u)" = 0 ] || { have sudo && sudo -n true 2>/dev/null; }; }

# apt_install PACKAGE...: into the system; refreshes apt's lists when they do not lead there.
apt_install() {
    local install=(apt-get install -q -y --no-install-recommends "$@")
    quietly apt-install with_root "${install[@]}" 2>/dev/null && return
    quietly apt-update with_root apt-get update -q && quietly apt-install with_root "${install[@]}"
}

# own_apt COMMAND...: apt-get for anybody, with lists and downloads of its own, over the system's package database.
own_apt() {
    local own=$cache/apt
    mkdir -p "$own/state/lists/partial" "$own/cache/archives/partial"
    apt-get -q -o Dir::State="$own/state" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$own/cache" \
        -o Debug::NoLocking=1 -o APT::Sandbox::User= "$@"
}

# unpack OPTION PACKAGE...: downloads packages and unpacks them into the cache. With `closure` all that the system
# lacks for them comes along, with `only` nothing else does.
unpack() {
    local how=$1 archives=$cache/apt/cache/archives deb
    shift
    rm -f "$archives"/*.deb
    if ! quietly apt-download download "$how" "$@" 2>/dev/null; then
        quietly apt-update own_apt update && quietly apt-download download "$how" "$@" 2>/dev/null || return 1
    fi
    mkdir -p "$cache/root" "$cache/bin"
    for deb in "$archives"/*.deb; do
        case ${deb##*/} in
            libc6_* | libc-bin_*) continue ;; # a second C library beside the system's helps nobody
        esac
        dpkg-deb -x "$deb" "$cache/root" || return 1
        rm -f "$deb"
    done
    write_wrappers
}
download() {
    local how=$1
    shift
    if [ "$how" = closure ]; then
        own_apt install -y --no-install-recommends --download-only "$@"
    else
        mkdir -p "$cache/apt/cache/archives"
        (cd "$cache/apt/cache/archives" && own_apt download "$@")
    fi
}

# A program from an unpacked package finds its libraries and its files where they were unpacked.
write_wrappers() {
    local root=$cache/root directory program libraries=
    for directory in "$root"/lib/*-linux-gnu "$root"/usr/lib/*-linux-gnu "$root"/usr/lib; do
        [ -d "$directory" ] && libraries=$libraries${libraries:+:}$directory
    done
    for program in "$root"/bin/* "$root"/sbin/* "$root"/usr/bin/* "$root"/usr/sbin/*; do
        [ -f "$program" ] && [ -x "$program" ] || continue
        {
            printf '#!/bin/sh\n'
            printf 'export LD_LIBRARY_PATH=%q${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\n' "$libraries"
            [ -e /etc/mke2fs.conf ] || printf 'export MKE2FS_CONFIG=%q\n' "$root/etc/mke2fs.conf"
            case ${program##*/} in
                qemu-system-*) printf 'set -- -L %q -L %q "$@"\n' "$root/usr/share/seabios" "$root/usr/share/qemu" ;;
            esac
            printf 'exec %q "$@"\n' "$program"
        } >"$cache/bin/${program##*/}"
        chmod 755 "$cache/bin/${program##*/}"
    done
}

# bring PACKAGE...: makes packages' programs usable, by installing or by unpacking; says which it could not.
bring() {
    local package
    if ! on_debian; then
        note "cannot bring $*: they come from Debian's apt, which is not here"
        return
    fi
    say "getting $*"
    if can_be_root; then
        apt_install "$@" 2>/dev/null && return
        for package in "$@"; do
            apt_install "$package" 2>/dev/null || note "cannot bring $package: apt cannot install it ($cache/log)"
        done
    else
        unpack closure "$@" 2>/dev/null && return
        for package in "$@"; do
            unpack closure "$package" 2>/dev/null || note "cannot bring $package: apt cannot fetch it ($cache/log)"
        done
    fi
}

# ------------------------------------------------------------------------------------------------------- Python

python_fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local name
    for name in ${BLOCKWRIGHT_PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if have "$name" && python_fits "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# ensure_venv run|docs|dev: the virtual environment has what the command needs, or also what the documentation is made
# with, or that and what the tests need.
ensure_venv() {
    local wanted=$1 key python enough each
    case $wanted in
        run) enough="run docs dev" ;;
        docs) enough="docs dev" ;;
        *) enough=$wanted ;;
    esac
    key=$(cksum "$repo/pyproject.toml" "$repo/src/blockwright/_version.py" | cksum)" $repo"
    for each in $enough; do
        if [ "$(cat "$venv/.blockwright" 2>/dev/null)" = "$each $key" ] && [ -x "$venv/bin/python" ]; then
            return
        fi
    done
    python=$(find_python) || bring python3 python3-venv
    python=$(find_python) || fail "Python 3.11 or newer is needed, and neither found nor brought"
    say "setting up $venv with $("$python" -V)"
    mkdir -p "$cache"
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv "$python"
    local what=$repo
    [ "$wanted" = run ] || what="$repo[$wanted]"
    quietly pip "$venv/bin/python" -m pip install -q --disable-pip-version-check -e "$what" ||
        fail "pip could not install what blockwright needs (see above; $cache/log/pip.log)"
    printf '%s\n' "$wanted $key" >"$venv/.blockwright"
}

# ensure_fuzz: what fuzzing needs besides, alone: to install blockwright once more would take it away for a moment from
# tests that run in the same environment.
ensure_fuzz() {
    "$venv/bin/python" -c 'import atheris' 2>/dev/null && return
    mkdir -p "$cache"
    "$venv/bin/python" - "$repo/pyproject.toml" >"$cache/fuzz.txt" <<'END'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    print(*tomllib.load(file)["project"]["optional-dependencies"]["fuzz"], sep="\n")
END
    quietly pip "$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$cache/fuzz.txt" ||
        fail "pip could not install atheris (see above; $cache/log/pip.log)"
}

# Debian's python3 makes no virtual environment with pip in it until python3-venv is there.
make_venv() {
    local python=$1 version wheel
    quietly venv "$python" -m venv --clear "$venv" 2>/dev/null && return
    on_debian || fail "$python cannot make virtual environments: install its venv module ($cache/log/venv.log)"
    version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    if can_be_root && apt_install "$version-venv" 2>/dev/null; then
        quietly venv "$python" -m venv --clear "$venv" && return
    fi
    # Only pip is missing then, and its wheel can install itself.
    unpack only python3-pip-whl || fail "python3-venv is missing, and apt cannot fetch it ($cache/log)"
    wheel=$(ls "$cache"/root/usr/share/python-wheels/pip-*.whl)
    quietly venv "$python" -m venv --clear --without-pip "$venv" &&
        quietly venv "$venv/bin/python" "$wheel/pip" install -q --disable-pip-version-check pip ||
        fail "cannot make $venv (see above)"
}

# -------------------------------------------------------------------------------------------------------- peers

# program:package, what the tests compare with and boot in.
peers="
    e2fsck:e2fsprogs sgdisk:gdisk genimage:genimage systemd-repart:systemd fsck.fat:dosfstools mcopy:mtools qemu-img:qemu-utils
    qemu-system-x86_64:qemu-system-x86 linux.uml:user-mode-linux sfdisk:fdisk getfattr:attr getfacl:acl
    nbdkit:nbdkit nbdcopy:libnbd-bin certtool:gnutls-bin openssl:openssl
    fio:fio nbdsh:python3-libnbd fusermount3:fuse3
    busybox:busybox-static bsdtar:libarchive-tools zstd:zstd xz:xz-utils bzip2:bzip2
    dmsetup:dmsetup kpartx:kpartx losetup:mount udevadm:udev thin_dump:thin-provisioning-tools
    strace:strace skopeo:skopeo umoci:umoci docker-registry:docker-registry
    qemu-nbd:qemu-utils nbd-server:nbd-server nbd-client:nbd-client veritysetup:cryptsetup-bin
    objcopy:binutils git:git mkfs.xfs:xfsprogs sbsign:sbsigntool osslsigncode:osslsigncode
    chromium:chromium chromedriver:chromium-driver
    mtree:mtree-netbsd genext2fs:genext2fs setcap:libcap2-bin matchpathcon:selinux-utils
    postgres:postgresql clamscan:clamav debsecan:debsecan
    zsh:zsh fish:fish mandoc:mandoc man:man-db
"
# User-Mode Linux needs help, which is compiled, on processors with more registers than it knows.
if grep -qs amx_tile /proc/cpuinfo; then
    peers="$peers cc:gcc"
fi

has_file() { [ -e "/$1" ] || [ -e "$cache/root/$1" ]; }

missing_peers() {
    local each
    for each in $peers; do
        have "${each%%:*}" || printf '%s ' "${each##*:}"
    done
    has_file usr/share/ovmf/OVMF.fd || printf 'ovmf '
    has_file usr/share/seabios/bios-256k.bin || printf 'seabios '
}

# file:package, boot loaders that disks of the tests are made with, and a policy with labels. They are unpacked and
# never installed, since some of these packages have opinions on how this machine starts, or what it allows.
loaders="
    usr/bin/extlinux:extlinux usr/lib/syslinux/mbr/gptmbr.bin:syslinux-common usr/bin/grub-mkimage:grub-common
    usr/lib/grub/i386-pc/kernel.img:grub-pc-bin usr/lib/grub/x86_64-efi/monolithic/grubx64.efi:grub-efi-amd64-bin
    usr/share/selinux/default/base.pp.bz2:selinux-policy-default
    usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed:grub-efi-amd64-signed
    usr/lib/shim/shimx64.efi:shim-unsigned usr/lib/shim/shimx64.efi.signed:shim-signed
    usr/lib/shim/mmx64.efi.signed:shim-helpers-amd64-signed
"

missing_loaders() {
    local each
    for each in $loaders; do
        has_file "${each%%:*}" || printf '%s ' "${each##*:}"
    done
}

ensure_loaders() {
    local missing
    missing=$(missing_loaders)
    [ -z "$missing" ] && return
    if on_debian; then
        say "getting $missing"
        # shellcheck disable=SC2086 # a list of words
        unpack closure $missing || true
    fi
    missing=$(missing_loaders)
    [ -z "$missing" ] || note "still missing: ${missing% }; tests that boot with them are skipped"
}

ensure_peers() {
    local missing
    missing=$(missing_peers)
    [ -z "$missing" ] && return
    # shellcheck disable=SC2086 # a list of words
    bring $missing
    hash -r
    missing=$(missing_peers)
    [ -z "$missing" ] || note "still missing: ${missing% }; tests that need them are skipped, under CI=true they fail"
}

# ------------------------------------------------------------------------------------------------ what boots

boot_kernel() { ls "$cache"/root/boot/vmlinuz-*-cloud-amd64 2>/dev/null | sort -V | tail -n 1; }
boot_loader() { ls "$cache/root/usr/lib/systemd/boot/efi/systemd-bootx64.efi" 2>/dev/null; }
boot_busybox() { ls "$cache/root/bin/busybox" "$cache/root/usr/bin/busybox" 2>/dev/null | head -n 1; }

# Debian's cloud kernel, systemd-boot and static busybox, unpacked: parts of the disks we build, so never installed.
ensure_boot_parts() {
    if [ -n "$(boot_kernel)" ] && [ -n "$(boot_loader)" ] && [ -n "$(boot_busybox)" ]; then
        return
    fi
    on_debian || return 1
    say "getting linux-image-cloud-amd64, systemd-boot-efi and busybox-static"
    local image
    image=$(kernel_package)
    if [ -z "$image" ]; then
        quietly apt-update own_apt update || return 1
        image=$(kernel_package)
    fi
    [ -n "$image" ] && unpack only "$image" systemd-boot-efi busybox-static
}

# The package which the newest linux-image-cloud-amd64 stands for.
kernel_package() {
    apt-cache -o Dir::State="$cache/apt/state" -o Dir::State::status=/var/lib/dpkg/status \
        -o Dir::Cache="$cache/apt/cache" depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/.*Depends: \(linux-image-[0-9]\)/\1/p' | head -n 1
}
