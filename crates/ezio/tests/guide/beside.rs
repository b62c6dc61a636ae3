//! What the texts take for granted before a block, and what must be so after it.

use crate::blocks::Place::{self, Server, Site, Target};

/// Beside a block, whichever has `line`.
pub(crate) struct Beside {
    pub(crate) file: &'static str,
    pub(crate) line: &'static str,
    pub(crate) before: &'static [(Place, &'static str)],
    /// Commands that must succeed.
    pub(crate) after: &'static [(Place, &'static str)],
}

/// What is typed instead, everywhere.
pub(crate) const INSTEAD: [(&str, &str); 9] = [
    // Waiting times of the old programs, which nothing depends on here.
    ("-w 90", "-w 1 -l 1"),
    ("-t 1 ", "-t 0 "),
    // A newcomer types the next command a second later.
    ("ezio &", "ezio & until : 2>/dev/null </dev/tcp/127.0.0.1/50051; do sleep 0.1; done"),
    // The program that was built for tests is not a fast one.
    ("--size 50GB", "--size 10MB"),
    ("--size 30GB", "--size 10MB"),
    ("256M ", "32M "),
    ("-- demo", "-- demo --size 64MiB"),
    // So that an answer that says no is a failure.
    ("curl http", "curl -fsS http"),
    ("curl -", "curl -fsS -"),
];

pub(crate) const BESIDE: &[Beside] = &[
    Beside {
        file: "README.md",
        line: "truncate -s 256M disk.img",
        before: &[],
        after: &[(Server, "cmp disk.img copy.img")],
    },
    Beside {
        file: "README.md",
        line: "ezio capture sda1.torrent.info",
        before: &[(
            Server,
            "mkdir blocks && partclone.ext4 -c -T -q -L /dev/null -s /dev/sda1 -O blocks \
             && mv blocks/torrent.info sda1.torrent.info && rm -r blocks",
        )],
        after: &[
            (Server, "ezio verify sda1.torrent /dev/sda1"),
            (Server, "ezio verify sda1.torrent ."),
        ],
    },
    Beside {
        file: "docs/terminal.md",
        line: "ezio watch http://192.168.1.1:6969",
        before: &[
            (
                Server,
                "ezio capture /dev/sda2 -o sda2.torrent && ln -s ezio /run/bin/ezio_add_torrent.py",
            ),
            (Server, "ezio &"),
            (Server, "ezio_add_torrent.py -S sda2.torrent /dev/sda2"),
            (Server, "ezio serve /dev/sda1"),
            (Target, "ezio deploy http://192.168.1.1:6969 --to /dev/sda1"),
        ],
        after: &[],
    },
    Beside {
        file: "docs/terminal.md",
        line: "ezio doctor http://192.168.1.1:6969 --to /dev/sda1",
        before: &[(Server, "ezio serve /dev/sda1")],
        after: &[],
    },
    Beside {
        file: "docs/dashboard.md",
        line: "curl http://127.0.0.1:6969/report.csv",
        before: &[
            (Server, "echo 1234567890abcdef >token && echo 'TOKEN=$(cat token)' >/run/environment"),
            (Server, "ezio serve /dev/sda1 --token-file token"),
        ],
        after: &[],
    },
    Beside {
        file: "docs/dashboard.md",
        line: "ezio serve /dev/sda1 --on-machine",
        before: &[],
        after: &[
            (Target, "ezio deploy http://192.168.1.1:6969 --to /dev/sda1"),
            (
                Server,
                "for n in $(seq 100); do grep ' done' room.log && exit 0; sleep 0.1; done; false",
            ),
        ],
    },
    Beside {
        file: "docs/migration.md",
        line: "cargo build --release",
        before: &[],
        after: &[(Server, "cmp /usr/local/bin/ezio /run/bin/ezio")],
    },
    Beside {
        file: "docs/migration.md",
        line: "cd /usr/local/bin",
        before: &[],
        after: &[(Server, "ezio_cli.py --help && ezio_ui.py --help")],
    },
    Beside {
        file: "docs/migration.md",
        line: "/home/partimag/btzone/IMG ",
        before: &[
            (Server, "mkdir -p /home/partimag/btzone/IMG"),
            (
                Server,
                "ezio capture /dev/sda1 -o sda1.torrent --image /home/partimag/btzone/IMG/sda1",
            ),
        ],
        after: &[],
    },
    Beside {
        file: "docs/migration.md",
        line: "ezio -U -T sda1.torrent",
        before: &[
            (Server, "ezio capture /dev/sda2 -o sda2.torrent"),
            (Server, "cp *.torrent /run/shared"),
            (Target, "cp /run/shared/*.torrent ."),
        ],
        after: &[],
    },
    Beside {
        file: "docs/migration.md",
        line: "ezio_add_torrent.py -S",
        before: &[(
            Target,
            "ln -s ezio /run/bin/ezio_add_torrent.py && ln -s ezio /run/bin/ezio_ui.py",
        )],
        after: &[],
    },
    Beside {
        file: "docs/migration.md",
        line: "dpkg-divert --local",
        before: &[(
            Server,
            "mkdir -p ~/ezio/target/release && cp /run/bin/ezio ~/ezio/target/release",
        )],
        after: &[(Server, "cmp /usr/bin/ezio /run/bin/ezio && readlink /usr/bin/ezio_ui.py")],
    },
    Beside {
        file: "docs/migration.md",
        line: "dpkg-divert --rename --remove",
        before: &[],
        after: &[(Server, "[ ! -e /usr/bin/ezio ] && [ ! -e /usr/bin/ezio_ui.py ]")],
    },
    Beside {
        file: "docs/migration.md",
        line: "wget http://HEADQUARTERS:6969",
        before: &[(Server, "ezio serve /dev/sda1"), (Site, "mkdir -p /srv")],
        after: &[(Target, "ezio deploy http://10.3.0.1:6969 --to /dev/sda1")],
    },
    Beside {
        file: "docs/guide.md",
        line: "sfdisk --dump /dev/sda",
        before: &[],
        after: &[(Server, "cp lab.sfdisk /run/shared")],
    },
    Beside {
        file: "docs/guide.md",
        line: "sfdisk --wipe always /dev/sda",
        before: &[(Target, "cp /run/shared/lab.sfdisk .")],
        after: &[(Target, "sfdisk --dump /dev/sda | cmp lab.sfdisk -")],
    },
    Beside {
        file: "docs/guide.md",
        line: "--on-done 'touch finished; reboot'",
        before: &[],
        after: &[(Target, "ls finished ~/rebooted")],
    },
    Beside {
        file: "docs/guide.md",
        line: "ezio watch http://192.168.1.1:6969",
        before: &[],
        // It says nothing in a pipe until there is a machine.
        after: &[(Target, "ezio deploy http://192.168.1.1:6969 --to /dev/sda1")],
    },
    Beside {
        file: "docs/guide.md",
        line: "/home/partimag/btzone/lab/sda1 -o",
        before: &[(
            Server,
            "mkdir -p /home/partimag/btzone/lab && partclone.ext4 -c -T -q -L /dev/null \
             -s /dev/sda1 -O /home/partimag/btzone/lab/sda1",
        )],
        after: &[(Target, "ezio deploy http://192.168.1.1:6969 --to /dev/sda1")],
    },
    Beside {
        file: "docs/first-ten-minutes.md",
        line: "e2fsck -f -n other.img",
        before: &[],
        after: &[(Server, "echo ls | debugfs other.img | grep -w passwd")],
    },
];
