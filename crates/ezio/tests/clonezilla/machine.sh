# Becomes one machine: $1 is its directory, $2 the program under test. It runs as process 1 of new
# namespaces of mounts and processes, on a network that was made before; all of it ends with it.
set -eu
mount --make-rprivate /
# Copies of what others have mounted just now would keep their devices busy.
while read -r device dir rest; do
    case $device in /dev/loop*) umount "$dir" || true ;; esac
done </proc/mounts
cd "$1"
touch ezio && mount --bind "$2" ezio

# What Clonezilla writes, one each. Nothing of the real machine's is seen or changed.
mount -t tmpfs none /home
mkdir -p /home/bin /home/partimag
touch /home/bin/ezio && mount --bind ezio /home/bin/ezio
for name in ezio_add_torrent.py ezio_add_torrent_seed.py ezio_cli.py ezio_ui.py ezio_shutdown.py \
    partclone_create_torrent.py; do
    ln -s ezio /home/bin/$name
done
mkdir -p partimag tmp log lock
mount --bind partimag /home/partimag
mount --bind log /var/log
mount --bind lock "$(realpath /var/lock)"
mount -t tmpfs none /run
mount --bind tmp /tmp
mkdir -p /var/log/clonezilla

# These would reach beyond this machine: the kernel's swap, volume groups, RAID, NVRAM, power.
for name in swapoff vgchange mdadm dmraid efibootmgr poweroff reboot halt shutdown systemctl; do
    if path=$(command -v $name); then
        mount --bind /bin/true "$path"
    fi
done

# A kernel without parsers for partition tables has no partitions after it was told to read the table
# again; partx reads it, and tells the kernel what that does not know yet.
blockdev=$(command -v blockdev)
cat >/home/bin/blockdev <<END
#!/bin/sh
"$blockdev" "\$@" || exit
case \$1 in --rereadpt) partx --update "\$2" ;; esac
END
chmod +x /home/bin/blockdev
echo ready
# A shell that waits also buries the processes whose parents have ended.
sleep infinity &
wait $!
