//! What stands below the options of `ezio COMMAND --help`: when to use it, examples that can be typed as
//! they are, what the exit code means. The tests parse every example.

/// Below the list of commands.
pub(super) const EZIO: &str = "\
Examples:
  ezio demo                                        # what it does, on this machine alone
  ezio serve /dev/sda1                             # on the machine with the image
  ezio deploy http://192.168.1.1:6969 --to /dev/sda1  # on every other

`ezio COMMAND --help` tells more. Exit code: 0 done, 1 failed (the standard error says what, on what and \
why), 2 wrong arguments.";

pub(super) const SERVE: &str = "\
For the machine that has the image, with the partition unmounted, as root. It reads the used blocks \
once, prints the line to run on every target, and serves until Ctrl-C.

Examples:
  ezio serve /dev/sda1                             # a partition
  ezio serve /dev/sda1 /dev/sda2                   # two
  ezio serve sda1.torrent --from /dev/sda1         # what `ezio capture` has read already
  ezio serve sda1.torrent --from /srv/images       # what `ezio deploy --as-files` has fetched
  ezio serve --raw /dev/sda                        # a whole disk, used or not
  ezio serve /dev/sda1 --limit 500Mbit/s           # leaves the rest of the link to others

Ports: TCP 6969 (targets, dashboard), TCP 6881 to 6889 (the image), UDP 6771 (local discovery).
Exit code: 0 ended by Ctrl-C or SIGTERM, 1 failed, 2 wrong arguments.";

pub(super) const DEPLOY: &str = "\
For every machine that gets the image, as root. Whatever is in the way (target in use, too small, \
read-only, other sectors) is an error before a byte is written. The same command again goes on after an \
interruption. When all is on the medium it serves others while they want something, then ends.

Examples:
  ezio deploy http://192.168.1.1:6969 --to /dev/sda1
  ezio deploy http://192.168.1.1:6969 --to sda1=/dev/sda1 --to sda2=/dev/sda2
  ezio deploy http://192.168.1.1:6969 --to /dev/sda1 --reuse  # fetches only what differs
  ezio deploy http://192.168.1.1:6969 --to /dev/sda1 --on-done reboot
  ezio deploy http://192.168.1.1:6969 --as-files --to /srv/images  # for another site
  ezio deploy sda1.torrent --to copy.img

--on-done gets EZIO_TARGET, EZIO_INFO_HASH, EZIO_STATUS, EZIO_SECONDS and EZIO_BYTES.
Exit code: 0 the data is on the medium, 1 failed, 2 wrong arguments.";

pub(super) const CAPTURE: &str = "\
To keep a torrent, or to make one on another machine than the one that serves; `ezio serve /dev/sda1` \
does both at once. It reads the source and writes nothing but OUT.torrent (and DIR with --image).

Examples:
  ezio capture /dev/sda1 -o sda1.torrent
  ezio capture /dev/sda1 -o sda1.torrent --tracker http://192.168.1.1:6969/announce
  ezio capture /dev/sda1 -o sda1.torrent --image sda1  # block files too, as `partclone -T`
  ezio capture sda1 -o sda1.torrent                # from such a directory
  ezio capture --raw disk.img -o disk.torrent      # all blocks

Exit code: 0 the torrent is written, 1 failed and there is none, 2 wrong arguments.";

pub(super) const VERIFY: &str = "\
For a target afterwards, or for a source before it is served. It writes nothing.

Examples:
  ezio verify sda1.torrent /dev/sda1
  ezio verify sda1.torrent /srv/images             # a directory of block files

Exit code: 0 all is right, 1 something is not, or cannot be read, 2 wrong arguments.";

pub(super) const CLEAR: &str = "\
To take an image off a device again, for instance before another is written: what the image does not \
cover stays. It asks nothing.

Example:
  ezio clear sda1.torrent /dev/sda1

Exit code: 0 done, 1 failed, 2 wrong arguments.";

pub(super) const INSPECT: &str = "\
Its name, info-hash (for `deploy --info-hash`), magnet link, pieces and extents, the used bytes, and the \
smallest device that it fits on.

Examples:
  ezio inspect sda1.torrent
  ezio inspect sda1.torrent --json

Exit code: 0 it is a torrent that can be used, 1 it is not, 2 wrong arguments.";

pub(super) const WATCH: &str = "\
It only looks. On a terminal it takes all of it (`h` there lists the keys, `q` ends it); in a pipe it \
prints a line for what is new, with --json an object for each change.

Examples:
  ezio watch http://192.168.1.1:6969
  ezio watch                                       # whatever runs on this machine
  ezio watch http://192.168.1.1:6969 --json

Exit code: 0 ended by `q` or Ctrl-C, 1 refused, 2 wrong arguments.";

pub(super) const DOCTOR: &str = "\
Before the first time, on the server and on a target. It writes nothing and reads no disk. Each line is \
ok, warning (it works, but slower or not in every way) or wrong (it will not work), with what to do.

Examples:
  ezio doctor                                      # this machine
  ezio doctor http://192.168.1.1:6969 --to /dev/sda1  # that server too, and whether its image fits

Exit code: 0 nothing is wrong, 1 something is, 2 wrong arguments.";

pub(super) const DEMO: &str = "\
It makes a small disk in a file, serves it, deploys it to others with real processes over loopback, \
compares every byte, and removes everything again.

Examples:
  ezio demo
  ezio demo --clients 8 --size 1GiB
  ezio demo --keep /tmp/demo                       # to look at what it made

Exit code: 0 every byte is right, 1 not, 2 wrong arguments.";

pub(super) const SIM: &str = "\
Before a switch or disks are bought, or to know when to be back. The code that decides is the one that \
deploys; links and disks are simulated, nothing is sent.

Examples:
  ezio sim --size 50GB
  ezio sim --size 50GB --link 1Gbit/s --disk 150MB/s --clients 1,8,32

Exit code: 0 done, 1 failed, 2 wrong arguments.";

/// All of them, with their commands.
#[cfg(test)]
pub(super) const ALL: [&str; 11] =
    [EZIO, SERVE, DEPLOY, CAPTURE, VERIFY, CLEAR, INSPECT, WATCH, DOCTOR, DEMO, SIM];
