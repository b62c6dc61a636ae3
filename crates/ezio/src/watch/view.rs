//! How a room is drawn: what is known, keys and a size in; lines of text out. It knows no terminal.
//!
//! ASCII but for what machines say of themselves, and that only where the terminal takes UTF-8. What
//! colours say stands there in words, too.

use super::room::{Machine, Room};
use crate::screen::Key;
use crate::ui::{is_utf8, show_eta};
use std::cell::Cell;
use std::cmp::Reverse;
use swarm::units::{Rate, Seconds};

/// How machines are shown.
#[derive(Clone, Debug)]
pub(super) struct View {
    order: Order,
    filter: Filter,
    /// Only machines in whose line this stands.
    search: String,
    /// Keys go into `search`.
    typing: bool,
    help: bool,
    /// Machines that are left out above; when it was drawn, no more than there are.
    top: Cell<usize>,
    /// How many fitted the last time: a page.
    page: Cell<usize>,
    colours: bool,
    utf8: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Look,
    Name,
    Progress,
    Rate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    All,
    Look,
    Working,
    Done,
}

const HELP: [&str; 5] = [
    "q quit   h this help   Ctrl-Z suspend   The server and the machines go on.",
    "sort: a those that need a look first   n name   p progress, least first   r rate",
    "show: f all, those that need a look, those at work, those that are done",
    "/ search: a name, an address, a state; Enter keeps it, Escape forgets it",
    "scroll: arrows or j and k, Page Up and Page Down or b and space, g first, G last",
];

/// Some lines say more than others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paint {
    Plain,
    Title,
    Bad,
    Doubtful,
    Good,
    Faint,
}

impl Default for View {
    /// As the environment wants it: `NO_COLOR` (no-color.org), and the locale.
    fn default() -> View {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        View::new(!no_colour, is_utf8())
    }
}

impl View {
    fn new(colours: bool, utf8: bool) -> View {
        View {
            order: Order::Look,
            filter: Filter::All,
            search: String::new(),
            typing: false,
            help: false,
            top: 0.into(),
            page: 10.into(),
            colours,
            utf8,
        }
    }

    /// Takes a key. Returns whether it is the last.
    pub(super) fn press(&mut self, key: Key) -> bool {
        if key == Key::Interrupt {
            return true;
        }
        if self.typing {
            self.type_in(key);
            return false;
        }
        let (top, page) = (self.top.get(), self.page.get().max(1));
        match key {
            Key::Char('q') => return true,
            Key::Char('a') => self.order = Order::Look,
            Key::Char('n') => self.order = Order::Name,
            Key::Char('p') => self.order = Order::Progress,
            Key::Char('r') => self.order = Order::Rate,
            Key::Char('f') => {
                self.filter = self.filter.next();
                self.top.set(0);
            }
            Key::Char('/') => self.typing = true,
            Key::Escape => {
                self.search.clear();
                self.top.set(0);
            }
            Key::Char('h' | '?') => self.help = !self.help,
            Key::Up | Key::Char('k') => self.top.set(top.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.top.set(top.saturating_add(1)),
            Key::PageUp | Key::Char('b') => self.top.set(top.saturating_sub(page)),
            Key::PageDown | Key::Char(' ') => self.top.set(top.saturating_add(page)),
            Key::Home | Key::Char('g') => self.top.set(0),
            Key::End | Key::Char('G') => self.top.set(usize::MAX),
            _ => {}
        }
        false
    }

    fn type_in(&mut self, key: Key) {
        match key {
            Key::Enter => self.typing = false,
            Key::Escape => (self.typing, self.search) = (false, String::new()),
            Key::Backspace => drop(self.search.pop()),
            Key::Char(char) => self.search.push(char),
            _ => {}
        }
        self.top.set(0);
    }

    /// The screen, from the top, for a terminal of so many columns and rows.
    pub(super) fn draw(&self, room: &Room, (columns, rows): (usize, usize)) -> Vec<String> {
        let mut lines = self.head(room, columns);
        let shown = self.chosen(room);
        // The last row says where this is.
        let free = rows.saturating_sub(lines.len() + 1);
        let blocks: Vec<_> = shown.iter().map(|machine| block(machine, columns)).collect();
        let (first, body) = self.window(&blocks, free);
        let last = first + body;
        lines.extend(blocks[first..last].iter().flatten().take(free).cloned());
        while lines.len() + 1 < rows {
            lines.push((Paint::Plain, String::new()));
        }
        lines.truncate(rows.saturating_sub(1));
        lines.push((Paint::Faint, self.foot(first, last, shown.len(), room.machines.len())));
        lines.into_iter().map(|(paint, line)| self.paint(paint, &line, columns)).collect()
    }

    /// The first machine that is shown and how many, so that no row stays free that could be used.
    fn window(&self, blocks: &[Vec<(Paint, String)>], free: usize) -> (usize, usize) {
        let fits = |blocks: &mut dyn Iterator<Item = &Vec<(Paint, String)>>| {
            let mut used = 0;
            let room = |block: &&Vec<_>| {
                used += block.len();
                used <= free
            };
            blocks.take_while(room).count()
        };
        // One too large for the screen is shown as far as it goes.
        let at_end = fits(&mut blocks.iter().rev()).clamp(1.min(blocks.len()), blocks.len());
        let first = self.top.get().min(blocks.len() - at_end);
        let count = fits(&mut blocks[first..].iter()).clamp(at_end.min(1), blocks.len() - first);
        self.page.set(count);
        self.top.set(first);
        (first, count)
    }

    fn head(&self, room: &Room, columns: usize) -> Vec<(Paint, String)> {
        let summary = &room.summary;
        let number = |key: &str| summary[key].as_u64().unwrap_or(0);
        let mut lines = vec![(Paint::Title, format!("{}  {}", room.url, room.served()))];
        if let Some((why, since)) = &room.lost {
            let time = Seconds(since.elapsed().as_secs());
            let text = format!("THE SERVER DOES NOT ANSWER for {time}, trying again: {why}");
            lines.push((Paint::Bad, text));
        } else if summary.is_null() {
            lines.push((Paint::Plain, "asking the server".to_owned()));
        }
        if !summary.is_null() {
            let progress = summary["progress"].as_f64().unwrap_or(0.0).clamp(0.0, 1.0);
            let over = number("done") + number("failed") == number("machines");
            let left = match (number("machines"), over) {
                (0, _) => "nobody is there yet".to_owned(),
                (_, true) => "all have ended".to_owned(),
                _ => format!("{} left", show_eta(summary["eta_seconds"].as_u64())),
            };
            let (rate, server) = (Rate(number("rate_in")), Rate(number("server_rate")));
            let rest = format!("{rate}, from this server {server}, {left}");
            let wide = columns.saturating_sub(rest.len() + 10).clamp(4, 40);
            let full = (progress * wide as f64) as usize;
            let (full, empty) = ("#".repeat(full), ".".repeat(wide - full));
            // From 0 to 100.
            let percent = (progress * 100.0) as u64;
            lines.push((Paint::Plain, format!("{percent:3}% [{full}{empty}] {rest}")));
            lines.push((Paint::Plain, counts(room)));
        }
        if self.help {
            lines.extend(HELP.map(|line| (Paint::Faint, line.to_owned())));
        }
        lines.push((Paint::Title, titles(columns)));
        lines
    }

    fn foot(&self, first: usize, last: usize, shown: usize, all: usize) -> String {
        let place = match shown {
            0 => "none".to_owned(),
            _ => format!("{}-{last}", first + 1),
        };
        let of = if shown == all { format!("of {all}") } else { format!("of {shown} ({all})") };
        let typed = match (self.typing, self.search.is_empty()) {
            (true, _) => format!("  search: {}_", self.search),
            (false, false) => format!("  search: {} (Escape forgets)", self.search),
            (false, true) => String::new(),
        };
        let (order, filter) = (self.order.name(), self.filter.name());
        format!("{place} {of}  sort: {order}  show: {filter}{typed}  q quit, h help")
    }

    fn chosen<'a>(&self, room: &'a Room) -> Vec<&'a Machine> {
        let wanted = self.search.to_lowercase();
        let fits = |machine: &&Machine| {
            let texts = [&machine.host, &machine.addr, machine.state(), &machine.why];
            let found = texts.iter().any(|text| text.to_lowercase().contains(&wanted));
            self.filter.shows(machine) && (wanted.is_empty() || found)
        };
        let mut shown: Vec<&Machine> = room.machines.values().filter(fits).collect();
        shown.sort_by_cached_key(|machine| self.order.key(machine));
        shown
    }

    fn paint(&self, paint: Paint, line: &str, columns: usize) -> String {
        let known = |c: char| if self.utf8 || c.is_ascii() { c } else { '?' };
        let text: String = line.chars().take(columns).map(known).collect();
        let code = match paint {
            Paint::Plain => return text,
            Paint::Title => "1",
            Paint::Faint => "2",
            _ if !self.colours => return text,
            Paint::Bad => "31",
            Paint::Doubtful => "33",
            Paint::Good => "32",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

impl Filter {
    fn next(self) -> Filter {
        match self {
            Filter::All => Filter::Look,
            Filter::Look => Filter::Working,
            Filter::Working => Filter::Done,
            Filter::Done => Filter::All,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Filter::All => "all",
            Filter::Look => "need a look",
            Filter::Working => "at work",
            Filter::Done => "done",
        }
    }

    fn shows(self, machine: &Machine) -> bool {
        match self {
            Filter::All => true,
            Filter::Look => machine.needs_look(),
            Filter::Working => !machine.is_done() && machine.health != "failed",
            Filter::Done => machine.is_done(),
        }
    }
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Order::Look => "need a look",
            Order::Name => "name",
            Order::Progress => "progress",
            Order::Rate => "rate",
        }
    }

    /// Those to look at first, and within what is alike by name.
    fn key(self, machine: &Machine) -> (u64, Reverse<u64>, String) {
        // In thousandths.
        let progress = (machine.progress * 1000.0) as u64;
        let name = machine.host.clone();
        match self {
            Order::Look => {
                let rank = match machine.health.as_str() {
                    "failed" => 0,
                    "stuck" => 1,
                    "gone" => 2,
                    "slow" => 3,
                    _ if machine.is_done() => 5,
                    _ => 4,
                };
                (rank, Reverse(0), name)
            }
            Order::Name => (0, Reverse(0), name),
            Order::Progress => (progress, Reverse(0), name),
            Order::Rate => (0, Reverse(machine.rate_in), name),
        }
    }
}

/// `32 machines: 21 downloading, 5 done; 1 failed, 2 slow`.
fn counts(room: &Room) -> String {
    let count = |key: &str| room.summary[key].as_u64().unwrap_or(0);
    let list = |keys: &[&str]| {
        let some = keys.iter().filter(|key| count(key) > 0);
        some.map(|key| format!("{} {key}", count(key))).collect::<Vec<_>>().join(", ")
    };
    let phases = list(&["done", "downloading", "checking", "flushing", "verifying"]);
    let looks = list(&["failed", "stuck", "gone", "slow", "strangers"]);
    let elapsed = room.summary["elapsed_seconds"].as_u64();
    let elapsed = elapsed.map_or_else(String::new, |secs| format!("  {} so far", Seconds(secs)));
    let looks = if looks.is_empty() { looks } else { format!("; {looks}") };
    format!("{} machines: {phases}{looks}{elapsed}", count("machines"))
}

/// Columns of a row beside the name: state, part, rates, time left, peers.
const REST: usize = 12 + 5 + 12 + 12 + 8 + 6;

/// As many columns as a name has.
fn name_len(columns: usize) -> usize {
    columns.saturating_sub(REST + 1).clamp(8, 24)
}

fn titles(columns: usize) -> String {
    let wide = name_len(columns);
    format!(
        "{:wide$} {:12}{:>5}{:>12}{:>12}{:>8}{:>6}",
        "MACHINE", "STATE", "DONE", "IN", "OUT", "LEFT", "PEERS"
    )
}

/// A machine's line, and a second one that says why if it needs a look.
fn block(machine: &Machine, columns: usize) -> Vec<(Paint, String)> {
    let wide = name_len(columns);
    let name: String = machine.host.chars().take(wide).collect();
    let rate = |rate: u64| if rate == 0 { "-".to_owned() } else { Rate(rate).to_string() };
    let left = match machine.eta {
        Some(eta) => show_eta(Some(eta)),
        None if machine.is_done() => Seconds(machine.seconds).to_string(),
        None => "-".to_owned(),
    };
    // From 0 to 100.
    let percent = format!("{}%", (machine.progress * 100.0) as u64);
    let row = format!(
        "{name:wide$} {:12.12}{percent:>5}{:>12}{:>12}{left:>8}{:>6}",
        machine.state(),
        rate(machine.rate_in),
        rate(machine.rate_out),
        machine.peers,
    );
    let paint = match machine.health.as_str() {
        "failed" | "stuck" | "gone" => Paint::Bad,
        "slow" => Paint::Doubtful,
        _ if machine.is_done() => Paint::Good,
        _ => Paint::Plain,
    };
    let mut lines = vec![(paint, row)];
    if machine.needs_look() && !machine.why.is_empty() {
        lines.extend(wrapped(&machine.why, columns).into_iter().map(|line| (paint, line)));
    }
    lines
}

/// Rows that a reason may take.
const REASON_ROWS: usize = 3;

/// `text` below a machine's line, in rows that fit.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match rows.last_mut() {
            Some(row) if row.chars().count() + 1 + word.chars().count() <= columns => {
                *row += &format!(" {word}");
            }
            _ => rows.push(format!("    {word}")),
        }
    }
    rows.truncate(REASON_ROWS);
    rows
}

#[cfg(test)]
mod tests;
