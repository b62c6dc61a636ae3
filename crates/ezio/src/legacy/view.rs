//! What `ezio_ui.py` shows, and `ezio watch` of a daemon: torrents and keys in, lines of text out. It
//! knows no terminal.

use super::messages::Torrent;
use crate::screen::Key;
use crate::ui::printable;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// How torrents are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    order: Order,
    filter: Filter,
    verbose: bool,
    help: bool,
    /// Torrents that are left out above.
    top: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Path,
    Name,
    Progress,
    Download,
    Upload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    All,
    Downloading,
    Finished,
    Paused,
    Moving,
}

/// What a key asks for beyond the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Nothing,
    Quit,
}

const HELP: &str = "\
keys: q quit, the daemon goes on    h this help    v more of each torrent
sort: s path, n name, p progress, d download, u upload
show: a all, 0 downloading, 1 finished, 2 paused, 3 those that move; j and k or arrows scroll";

impl Default for View {
    fn default() -> View {
        View { order: Order::Path, filter: Filter::All, verbose: false, help: false, top: 0 }
    }
}

impl View {
    /// Takes a key.
    pub(crate) fn press(&mut self, key: Key) -> Wish {
        let char = match key {
            Key::Interrupt => return Wish::Quit,
            Key::Up => 'k',
            Key::Down => 'j',
            Key::Char(char) => char,
            Key::Home => {
                self.top = 0;
                return Wish::Nothing;
            }
            _ => return Wish::Nothing,
        };
        match char {
            's' => self.order = Order::Path,
            'n' => self.order = Order::Name,
            'p' => self.order = Order::Progress,
            'd' => self.order = Order::Download,
            'u' => self.order = Order::Upload,
            'a' => self.filter = Filter::All,
            '0' => self.filter = Filter::Downloading,
            '1' => self.filter = Filter::Finished,
            '2' => self.filter = Filter::Paused,
            '3' => self.filter = Filter::Moving,
            'v' => self.verbose = !self.verbose,
            'h' | '?' => self.help = !self.help,
            'j' => self.top += 1,
            'k' => self.top = self.top.saturating_sub(1),
            'q' => return Wish::Quit,
            _ => {}
        }
        Wish::Nothing
    }

    /// The screen, from the top, for a terminal of so many columns and rows. `errors`: why torrents
    /// failed, by their hash.
    pub(crate) fn draw(
        &self,
        torrents: &[Torrent],
        errors: &BTreeMap<String, String>,
        (columns, rows): (usize, usize),
    ) -> Vec<String> {
        let mut lines = vec![total(torrents)];
        if self.help {
            lines.extend(HELP.lines().map(str::to_owned));
        }
        let mut shown: Vec<&Torrent> =
            torrents.iter().filter(|torrent| self.filter.shows(torrent)).collect();
        shown.sort_by_key(|torrent| self.order.key(torrent));
        let mut hidden = torrents.len() - shown.len();
        // At least the last one stays.
        let top = self.top.min(shown.len().saturating_sub(1));
        hidden += top;
        for torrent in shown.split_off(top) {
            let mut more = vec![summary(torrent, columns)];
            more.extend(
                errors.get(&torrent.hash).map(|why| format!("    failed: {}", printable(why))),
            );
            if self.verbose {
                more.push(detail(torrent));
            }
            // The last row says what is missing.
            if lines.len() + more.len() < rows.max(2) {
                lines.extend(more);
            } else {
                hidden += 1;
            }
        }
        if hidden > 0 {
            lines.push(format!("{hidden} more"));
        }
        lines.into_iter().map(|line| line.chars().take(columns).collect()).collect()
    }
}

impl Filter {
    fn shows(self, torrent: &Torrent) -> bool {
        match self {
            Filter::All => true,
            Filter::Downloading => !torrent.is_finished,
            Filter::Finished => torrent.is_finished,
            Filter::Paused => torrent.is_paused,
            Filter::Moving => torrent.download_rate > 0 || torrent.upload_rate > 0,
        }
    }
}

impl Order {
    /// Small numbers and letters first, fast ones first.
    fn key(self, torrent: &Torrent) -> (String, Reverse<i64>) {
        match self {
            Order::Path => (torrent.save_path.clone(), Reverse(0)),
            Order::Name => (torrent.name.clone(), Reverse(0)),
            // Least first: that is what is waited for.
            Order::Progress => (String::new(), Reverse(-percent(torrent))),
            Order::Download => (String::new(), Reverse(torrent.download_rate)),
            Order::Upload => (String::new(), Reverse(torrent.upload_rate)),
        }
    }
}

fn total(torrents: &[Torrent]) -> String {
    let sum = |of: fn(&Torrent) -> i64| torrents.iter().map(of).sum::<i64>();
    let (done, total) = (sum(|t| t.total_done), sum(|t| t.total));
    let down = sum(|t| t.download_rate);
    format!(
        "total {:3}%  D {}  U {}  {} of {} finished  ETA {}",
        i128::from(done) * 100 / i128::from(total.max(1)),
        rate(down),
        rate(sum(|t| t.upload_rate)),
        torrents.iter().filter(|torrent| torrent.is_finished).count(),
        torrents.len(),
        eta(total - done, down),
    )
}

fn summary(torrent: &Torrent, columns: usize) -> String {
    let wide = usize::try_from(percent(torrent)).unwrap_or(0).min(100) / 5;
    let bar = if columns >= 100 { format!(" [{:20}]", "#".repeat(wide)) } else { String::new() };
    let state = match (torrent.is_paused, torrent.is_finished) {
        (true, _) => "paused",
        (false, true) => "finished",
        (false, false) => "",
    };
    format!(
        "{:16}{bar} {:3}%  D {}  U {}  ETA {:>8}  {state}",
        torrent.save_path,
        percent(torrent),
        rate(torrent.download_rate),
        rate(torrent.upload_rate),
        eta(torrent.total - torrent.total_done, torrent.download_rate),
    )
}

fn detail(torrent: &Torrent) -> String {
    format!(
        "    {} {}  peers {}  pieces {}  active {} s  finished {} s  sent {} s ago",
        torrent.name,
        torrent.hash,
        torrent.num_peers,
        torrent.num_pieces,
        torrent.active_time,
        torrent.finished_time,
        torrent.last_upload,
    )
}

fn percent(torrent: &Torrent) -> i64 {
    // From 0 to 100.
    (torrent.progress * 100.0) as i64
}

fn rate(bytes_per_s: i64) -> String {
    let mib = bytes_per_s as f64 / f64::from(1 << 20);
    format!("{:6.2} GB/min {mib:7.2} MB/s", mib * 60.0 / 1024.0)
}

/// `1:02:03`, or nothing where it cannot be known.
fn eta(bytes: i64, bytes_per_s: i64) -> String {
    if bytes <= 0 || bytes_per_s <= 0 {
        return "-".to_owned();
    }
    let secs = bytes / bytes_per_s;
    format!("{}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn torrents() -> Vec<Torrent> {
        let torrent = |path: &str, name: &str, done: i64, rate: i64| Torrent {
            save_path: path.to_owned(),
            name: name.to_owned(),
            progress: done as f64 / 100.0,
            total: 100 << 20,
            total_done: done << 20,
            download_rate: rate << 20,
            is_finished: done == 100,
            ..Torrent::default()
        };
        let (a, b) = (torrent("/dev/b", "x", 50, 10), torrent("/dev/a", "z", 100, 0));
        vec![a, b, torrent("/dev/c", "y", 25, 5)]
    }

    /// Paths in the order in which they are shown after `keys`.
    fn shown(keys: &str) -> String {
        let mut view = View::default();
        keys.chars().for_each(|key| assert_eq!(view.press(Key::Char(key)), Wish::Nothing));
        let lines = view.draw(&torrents(), &BTreeMap::new(), (80, 24));
        let paths = lines.iter().filter_map(|line| line.strip_prefix("/dev/"));
        paths.filter_map(|rest| rest.chars().next()).collect()
    }

    #[test]
    fn keys_sort_and_choose() {
        for (keys, paths) in [
            ("", "abc"),
            ("n", "bca"),
            ("p", "cba"),
            ("d", "bca"),
            ("ds", "abc"),
            ("0", "bc"),
            ("1", "a"),
            ("2", ""),
            ("3", "bc"),
            ("3a", "abc"),
            ("hv", "abc"),
            ("j", "bc"),
            ("jjjjjk", "c"),
        ] {
            assert_eq!(shown(keys), paths, "{keys}");
        }
        assert_eq!(View::default().press(Key::Char('q')), Wish::Quit);
    }

    #[test]
    fn a_line_says_how_long_it_will_take() {
        let lines = View::default().draw(&torrents(), &BTreeMap::new(), (120, 24));
        assert!(lines[0].starts_with("total  58%  D   0.88 GB/min   15.00 MB/s"), "{}", lines[0]);
        assert!(lines[0].ends_with("1 of 3 finished  ETA 0:00:08"), "{}", lines[0]);
        let bar = "[##########          ]  50%  D   0.59 GB/min   10.00 MB/s";
        assert!(lines[2].contains(bar) && lines[2].contains("ETA  0:00:05"), "{}", lines[2]);
    }

    #[test]
    fn a_small_terminal_is_not_overrun() {
        let mut view = View::default();
        view.press(Key::Char('v'));
        let lines = view.draw(&torrents(), &BTreeMap::new(), (30, 4));
        assert_eq!((lines.len(), &lines[3][..]), (4, "2 more"));
        assert!(lines.iter().all(|line| line.chars().count() <= 30));
    }

    #[test]
    fn why_a_torrent_failed_stands_below_it() {
        let mut torrents = torrents();
        torrents[0].hash = "ab".into();
        let errors = BTreeMap::from([("ab".to_owned(), "disk\u{1b}[2J full".to_owned())]);
        let lines = View::default().draw(&torrents, &errors, (80, 24));
        assert_eq!(lines[3], "    failed: disk\\u{1b}[2J full");
    }
}
