#!/bin/sh
# Gives a root file system ($1, a hook of mmdebstrap) its release's kernel, as boot/vmlinuz, and
# boot/early: an archive for the kernel with the modules that the guest needs, and a first program
# that loads them and goes on with the root file system on /dev/vda.
set -eu
export APT_CONFIG="${MMDEBSTRAP_APT_CONFIG:-}"
# Each after those that it needs.
modules="watchdog i6300esb dummy veth virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev
    virtio_pci virtio_blk crc16 mbcache crc32c_generic jbd2 ext4 scsi_common scsi_mod
    crct10dif_common crc-t10dif crc64 crc64-rocksoft t10-pi sd_mod sg configfs target_core_mod
    target_core_file tcm_loop iscsi_target_mod scsi_transport_iscsi libiscsi libiscsi_tcp iscsi_tcp"
work="$1/tmp/kernel"
mkdir -p "$work/early/bin" "$work/early/dev" "$work/early/root"
cd "$work"
kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-\)/\1/p')
apt-get download -q "$kernel" busybox-static
for package in *.deb; do
    dpkg-deb -x "$package" .
done
cp boot/vmlinuz-* "$1/boot/vmlinuz"
cp bin/busybox early/bin/busybox
number=100
for module in $modules; do
    number=$((number + 1))
    find lib/modules -name "$module.ko" -exec cp {} "early/$number-$module.ko" \;
done
find lib/modules -name softdog.ko -exec cp {} early/softdog \;
cat >early/init <<'EOF'
#!/bin/busybox sh
PATH=/bin
for module in /*.ko; do
    busybox insmod "$module"
done
# A second watchdog, which cannot be stopped, and only says that it would reset the machine.
busybox insmod /softdog soft_noboot=1 nowayout=1
busybox mount -t devtmpfs dev /dev
busybox mount -t ext4 /dev/vda /root
busybox mount -o move /dev /root/dev
exec busybox switch_root /root /sbin/init
EOF
chmod 755 early/init
(cd early && find . | bin/busybox cpio -o -H newc >"$1/boot/early")
cd /
rm -rf "$work"
