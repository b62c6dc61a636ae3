# Becomes one machine of the guide: $1 is its directory, $2 the program under test. It runs as process 1
# of new namespaces of mounts and processes, on a network that was made before; all of it ends with it.
# $3 and on are block devices outside and the names they have here: /dev/loop7=sda1.
set -eu
mount --make-rprivate /
# Copies of what others have mounted just now would keep their devices busy.
while read -r device dir rest; do
    case $device in /dev/loop*) umount "$dir" || true ;; esac
done </proc/mounts
here=$1 program=$2
shift 2
cd "$here"
mkdir -p shared bin home/partimag root srv dev usr-bin work dpkg dpkg-work

# A /dev of its own, in which the disks have the names of the guide.
mount -t tmpfs none dev
for node in null zero full random urandom tty; do
    touch dev/$node && mount --bind /dev/$node dev/$node
done
mkdir dev/shm && ln -s /proc/self/fd dev/fd && ln -s fd/0 dev/stdin && ln -s fd/1 dev/stdout &&
    ln -s fd/2 dev/stderr
for disk; do
    mknod "dev/${disk#*=}" b $(stat -c '0x%t 0x%T' "${disk%=*}")
done

# Programs that a newcomer has, or gets first; what they would change outside is looked at instead.
touch bin/ezio && mount --bind "$program" bin/ezio
cat >bin/cargo <<'END'
#!/bin/sh
case "$1 $2 $3" in
    "run --release --") shift 3 && exec ezio "$@" ;;
    "build --release ") mkdir -p target/release && cp "$(command -v ezio)" target/release/ezio ;;
    *) echo "nobody has said what cargo $* does here" >&2 && exit 1 ;;
esac
END
cat >bin/apt <<'END'
#!/bin/sh
[ "$1" = install ] && shift || exit 1
for package; do apt-cache show "$package" >/dev/null || exit 1; done
END
printf '#!/bin/sh\ntouch /root/rebooted\n' >bin/reboot
chmod +x bin/*

# What the guide writes; nothing of the real machine's is seen or changed.
lower() {
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$1"
}
lower /usr/bin usr-bin work
lower /var/lib/dpkg dpkg dpkg-work
printf '127.0.0.1 localhost\n192.168.1.1 server HEADQUARTERS\n10.3.0.1 proxy\n' >hosts
mount --bind hosts /etc/hosts
mount -t tmpfs none /usr/local/bin
mount -t tmpfs none /run
mount --bind home /home
mount --bind root /root
mount --bind srv /srv
mkdir -p /run/lock /run/shared
mount --bind ../shared /run/shared
mkdir /run/bin && mount --rbind bin /run/bin
# Last: what is above may lie in it.
mount --rbind dev /dev
echo ready
# A shell that waits also buries the processes whose parents have ended.
sleep infinity &
wait $!
