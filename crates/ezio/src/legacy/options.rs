//! The flags of the C++ EZIO, 1.x and 2.x, read as its library does: `--name value`,
//! `--name=value`, `-nvalue`, joined switches, and the beginning of a long name if it is clear.
//!
//! One table holds both programs' flags; which of the two is meant follows from what was given.

use crate::logs::LogArgs;
use anyhow::{anyhow, bail, ensure};
use clap::ValueEnum;

/// What was asked for. A flag that was not given is `None`, `false` or empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub(super) help: bool,
    pub(super) version: bool,
    pub(super) file: bool,
    pub(super) listen: Option<String>,

    // 1.x
    pub(super) ratio: Option<i64>,
    pub(super) timeout: Option<i64>,
    pub(super) contact: Option<i64>,
    pub(super) max_uploads: Option<i64>,
    pub(super) max_connections: Option<i64>,
    pub(super) sequential: bool,
    pub(super) upload: bool,
    pub(super) cache_kib: Option<i64>,
    pub(super) torrents: Vec<String>,
    pub(super) save_paths: Vec<String>,
    /// `--legacy_torrent` and `--legacy_save_path`, or the two arguments without a flag.
    pub(super) legacy: Vec<String>,

    // 2.x
    pub(super) cache_mb: Option<i64>,
    pub(super) aio_threads: Option<i64>,
    pub(super) slow_start: bool,
    pub(super) slow_start_period: Option<i64>,
    pub(super) port: Option<i64>,
    /// Ours; the C++ EZIO has none of these.
    pub(super) log: LogArgs,

    /// The first flag that only one of the two programs has, as it was given.
    pub(super) one_shot: Option<String>,
    pub(super) daemon: Option<String>,
}

/// Whose flag it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Both,
    OneShot,
    Daemon,
}

/// Name, letter if it has one, whether a value follows, and whose it is. `--file` is both's, but
/// its letter is `f` in 1.x and `F` in 2.x.
const FLAGS: [(&str, Option<char>, bool, Of); 23] = [
    ("help", Some('h'), false, Of::Both),
    ("version", Some('v'), false, Of::Daemon),
    ("file", None, false, Of::Both),
    ("file", Some('f'), false, Of::OneShot),
    ("file", Some('F'), false, Of::Daemon),
    ("listen", None, true, Of::Both),
    ("listen", Some('l'), true, Of::Daemon),
    ("ratio", Some('e'), true, Of::OneShot),
    ("timeout", Some('t'), true, Of::OneShot),
    ("contact", Some('k'), true, Of::OneShot),
    ("maxu", Some('m'), true, Of::OneShot),
    ("maxc", Some('c'), true, Of::OneShot),
    ("sequential", Some('s'), false, Of::OneShot),
    ("upload", Some('U'), false, Of::OneShot),
    ("cache", None, true, Of::OneShot),
    ("torrent", Some('T'), true, Of::OneShot),
    ("save_path", Some('L'), true, Of::OneShot),
    ("legacy_torrent", None, true, Of::OneShot),
    ("legacy_save_path", None, true, Of::OneShot),
    ("cache-size", None, true, Of::Daemon),
    ("aio-threads", None, true, Of::Daemon),
    ("slow-start", None, false, Of::Daemon),
    ("slow-start-period", None, true, Of::Daemon),
];

/// `-p`, which does not fit the row of names that begin alike.
const PORT: (&str, Option<char>, bool, Of) = ("port", Some('p'), true, Of::Daemon);

/// Flags of ours, which are not guessed from their beginning: what was clear before stays clear.
const OURS: [(&str, Option<char>, bool, Of); 3] = [
    ("log", None, true, Of::Daemon),
    ("log-format", None, true, Of::Daemon),
    ("log-level", None, true, Of::Daemon),
];

type Flag = (&'static str, Option<char>, bool, Of);

/// Reads the arguments behind the program's name.
///
/// # Errors
/// An unknown flag, a value that is missing or no number, more than two arguments without a flag,
/// or flags of both programs.
pub(super) fn parse(args: &[String]) -> anyhow::Result<Options> {
    let mut options = Options::default();
    let mut args = args.iter().cloned();
    while let Some(arg) = args.next() {
        if let Some(long) = arg.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let flag = by_name(name)?;
            ensure!(flag.2 || value.is_none(), "--{name} takes no value");
            let value = value.or_else(|| if flag.2 { args.next() } else { None });
            options.take(flag, &format!("--{}", flag.0), value)?;
        } else if arg.len() > 1 && arg.starts_with('-') {
            options.take_letters(&arg[1..], &mut args)?;
        } else {
            options.mark(Of::OneShot, &arg);
            options.legacy.push(arg);
        }
    }
    ensure!(options.legacy.len() <= 2, "`{}` is one argument too many", options.legacy[2]);
    if let (Some(one), Some(other)) = (&options.one_shot, &options.daemon)
        && !options.help
        && !options.version
    {
        bail!("`{one}` is of EZIO 1.x and `{other}` of the daemon of 2.x: they do not go together");
    }
    Ok(options)
}

impl Options {
    /// Whether it is EZIO 1.x that is meant.
    pub(super) fn is_one_shot(&self) -> bool {
        self.one_shot.is_some()
    }

    /// `-sU`, `-t5`.
    fn take_letters(
        &mut self,
        letters: &str,
        args: &mut impl Iterator<Item = String>,
    ) -> anyhow::Result<()> {
        for (at, letter) in letters.char_indices() {
            let shown = format!("-{letter}");
            let mut all = FLAGS.iter().chain([&PORT]);
            let flag = all.find(|flag| flag.1 == Some(letter));
            let flag = *flag.ok_or_else(|| anyhow!("there is no flag `{shown}`"))?;
            if !flag.2 {
                self.take(flag, &shown, None)?;
                continue;
            }
            let rest = &letters[at + letter.len_utf8()..];
            let value = if rest.is_empty() { args.next() } else { Some(rest.to_owned()) };
            return self.take(flag, &shown, value);
        }
        Ok(())
    }

    fn take(&mut self, flag: Flag, shown: &str, value: Option<String>) -> anyhow::Result<()> {
        let (name, _, wants, of) = flag;
        self.mark(of, shown);
        let value = match value {
            None if wants => bail!("`{shown}` wants a value"),
            value => value.unwrap_or_default(),
        };
        let number = || {
            let number = value.parse::<i64>();
            number.map(Some).map_err(|_| anyhow!("`{shown}` wants a number, not `{value}`"))
        };
        match name {
            "help" => self.help = true,
            "version" => self.version = true,
            "file" => self.file = true,
            "listen" => self.listen = Some(value),
            "ratio" => self.ratio = number()?,
            "timeout" => self.timeout = number()?,
            "contact" => self.contact = number()?,
            "maxu" => self.max_uploads = number()?,
            "maxc" => self.max_connections = number()?,
            "sequential" => self.sequential = true,
            "upload" => self.upload = true,
            "cache" => self.cache_kib = number()?,
            "torrent" => self.torrents.push(value),
            "save_path" => self.save_paths.push(value),
            "legacy_torrent" | "legacy_save_path" => self.legacy.push(value),
            "cache-size" => self.cache_mb = number()?,
            "aio-threads" => self.aio_threads = number()?,
            "slow-start" => self.slow_start = true,
            "slow-start-period" => self.slow_start_period = number()?,
            "port" => self.port = number()?,
            "log" => self.log.file = Some(value.into()),
            "log-format" => self.log.log_format = Some(chosen(shown, &value)?),
            "log-level" => self.log.log_level = Some(chosen(shown, &value)?),
            _ => unreachable!("`{name}` is in the table"),
        }
        Ok(())
    }

    fn mark(&mut self, of: Of, shown: &str) {
        let place = match of {
            Of::Both => return,
            Of::OneShot => &mut self.one_shot,
            Of::Daemon => &mut self.daemon,
        };
        place.get_or_insert_with(|| shown.to_owned());
    }
}

/// One of the values that the flag knows.
fn chosen<T: ValueEnum>(shown: &str, value: &str) -> anyhow::Result<T> {
    T::from_str(value, true).map_err(|_| {
        let all = T::value_variants().iter().filter_map(|one| one.to_possible_value());
        let names: Vec<String> = all.map(|one| one.get_name().to_owned()).collect();
        anyhow!("`{shown}` wants one of {}, not `{value}`", names.join(", "))
    })
}

/// The flag of this long name, or the only one whose name begins so.
fn by_name(name: &str) -> anyhow::Result<Flag> {
    let all = || FLAGS.iter().chain([&PORT]);
    // The row of `--file` and `--listen` that belongs to both comes first.
    if let Some(&flag) = all().chain(&OURS).find(|flag| flag.0 == name) {
        return Ok(flag);
    }
    let mut names: Vec<&str> = all().map(|flag| flag.0).filter(|n| n.starts_with(name)).collect();
    names.dedup();
    match names[..] {
        [only] if !name.is_empty() => by_name(only),
        [] => bail!("there is no flag `--{name}`"),
        _ => bail!("`--{name}` may be any of --{}", names.join(", --")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Level;

    fn read(line: &str) -> anyhow::Result<Options> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn clonezillas_command_lines_are_understood() {
        let seeder = read("-U -f --cache 9745447 -T a/sda1.torrent -L a -T a/sda2.torrent -L a");
        let seeder = seeder.unwrap();
        assert!(seeder.is_one_shot() && seeder.upload && seeder.file);
        assert_eq!(seeder.cache_kib, Some(9_745_447));
        assert_eq!((seeder.torrents.len(), seeder.save_paths.len()), (2, 2));
        let leecher = read("-t 1 --cache 10824065 -T x.torrent -L /dev/sda1").unwrap();
        assert_eq!((leecher.timeout, leecher.is_one_shot()), (Some(1), true));
        let daemon = read("-F --cache-size 6027 --aio-threads 4 --slow-start").unwrap();
        assert!(!daemon.is_one_shot() && daemon.file && daemon.slow_start);
        assert_eq!((daemon.cache_mb, daemon.aio_threads), (Some(6027), Some(4)));
        assert!(!read("").unwrap().is_one_shot());
    }

    #[test]
    fn values_may_be_joined_and_names_cut_short() {
        let all = read("-t5 --ratio=0 -sU --tor a.torrent --save b x y").unwrap();
        assert_eq!((all.timeout, all.ratio), (Some(5), Some(0)));
        assert!(all.sequential && all.upload);
        assert_eq!(
            (&all.torrents[..], &all.save_paths[..]),
            (&["a.torrent".into()][..], &["b".into()][..])
        );
        assert_eq!(all.legacy, ["x", "y"]);
        assert_eq!(read("--li a:1").unwrap().listen.as_deref(), Some("a:1"));
        let log = read("--log x --log-level=debug").unwrap().log;
        assert_eq!((log.file, log.log_level), (Some("x".into()), Some(Level::Debug)));
        assert!(read("--cache 5").unwrap().is_one_shot());
        assert!(!read("--cache-size 5").unwrap().is_one_shot());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |line, words: &str| {
            let why = read(line).unwrap_err().to_string();
            assert!(why.contains(words), "{line}: {why}");
        };
        check("-x", "no flag `-x`");
        check("--nonsense", "no flag `--nonsense`");
        check("-t", "wants a value");
        check("-t soon", "wants a number, not `soon`");
        check("--slow", "may be any of --slow-start, --slow-start-period");
        check("a b c", "`c` is one argument too many");
        check("-T a -L b --slow-start", "do not go together");
        check("--help=1", "takes no value");
        check("-- a", "may be any of");
        check("--log-level loud", "`--log-level` wants one of trace, debug, info, warn, error");
    }
}
