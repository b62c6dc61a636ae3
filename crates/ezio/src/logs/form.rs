//! How a line of the log looks. A record in, text out.

use super::Level;
use crate::ui::printable;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Something that happened.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) at: SystemTime,
    pub(super) level: Level,
    /// Which part of the program says it.
    pub(super) module: &'static str,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
}

impl Record {
    pub(super) fn new(level: Level, message: String) -> Record {
        Record { at: SystemTime::now(), level, module: module_path!(), message, fields: Vec::new() }
    }

    /// The message and `name=value` of its fields.
    pub(super) fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.fields {
            // Writing to a string cannot fail.
            let _ = match value {
                Value::String(value) if is_plain(value) => write!(text, " {name}={value}"),
                value => write!(text, " {name}={value}"),
            };
        }
        text
    }
}

/// Whether it needs no quotes to be told from what follows.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '"')
}

/// A kind of line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
    /// `<6>text`: what systemd makes of it is in sd-daemon(3).
    Prefixed,
    /// As the C++ EZIO's daemon logs.
    Spdlog,
}

impl Form {
    /// The whole line or lines, with their end. No control characters but in JSON, which escapes them.
    pub(super) fn line(self, record: &Record) -> String {
        let name = record.level.name();
        match self {
            Form::Text => {
                let (text, at) = (one_line(&record.text()), stamp(record.at, 'T'));
                format!("{at}Z {name:7} {text}\n")
            }
            Form::Spdlog => {
                let (text, at) = (one_line(&record.text()), stamp(record.at, ' '));
                format!("[{at}] [{name}] {text}\n")
            }
            Form::Prefixed => {
                let priority = record.level.priority();
                let text = printable(&record.text());
                text.lines().map(|line| format!("<{priority}>{line}\n")).collect()
            }
            Form::Json => {
                let mut object = Map::new();
                object.insert("time".into(), format!("{}Z", stamp(record.at, 'T')).into());
                object.insert("level".into(), name.into());
                object.insert("module".into(), record.module.into());
                object.insert("message".into(), record.message.clone().into());
                for (name, value) in &record.fields {
                    object.entry(*name).or_insert_with(|| value.clone());
                }
                format!("{}\n", Value::Object(object))
            }
        }
    }
}

/// Lines become parts of one: a line of a log is one event.
fn one_line(text: &str) -> String {
    let parts: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    printable(&parts.join(" | "))
}

/// `2026-11-23 01:02:03.004` with `between` instead of the space; UTC.
fn stamp(at: SystemTime, between: char) -> String {
    let millis = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let (secs, millis) = (millis / 1000, millis % 1000);
    let (year, month, day) = date(secs / 86_400);
    let (hour, minute, second) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:02}.{millis:03}")
}

/// Year, month, day of a day counted from 1970-01-01.
fn date(mut day: u128) -> (u128, usize, u128) {
    let of = |year: u128, years| year.is_multiple_of(years);
    let leap = |year| (of(year, 4) && !of(year, 100)) || of(year, 400);
    let mut year = 1970;
    while day >= 365 + u128::from(leap(year)) {
        day -= 365 + u128::from(leap(year));
        year += 1;
    }
    let february = 28 + u128::from(leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    (year, month + 1, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn times_are_written_as_dates() {
        assert_eq!(stamp(at(0), ' '), "1970-01-01 00:00:00.000");
        assert_eq!(stamp(at(951_782_400_007), ' '), "2000-02-29 00:00:00.007");
        assert_eq!(stamp(at(1_795_395_599_999), 'T'), "2026-11-23T00:59:59.999");
    }

    #[test]
    fn a_record_is_a_line_in_every_form() {
        let record = Record {
            at: at(7),
            level: Level::Warn,
            module: "ezio::engine",
            message: "banned\n  \x1b[2J".into(),
            fields: vec![
                ("peer", "10.0.0.7:6881".into()),
                ("why", "a \"b\"\n".into()),
                ("piece", 5.into()),
            ],
        };
        let check = |form: Form, wanted: &str| assert_eq!(form.line(&record), wanted, "{form:?}");
        let rest = r#"banned | \u{1b}[2J peer=10.0.0.7:6881 why="a \"b\"\n" piece=5"#;
        check(Form::Text, &format!("1970-01-01T00:00:00.007Z warning {rest}\n"));
        check(Form::Spdlog, &format!("[1970-01-01 00:00:00.007] [warning] {rest}\n"));
        let second = r#"<4>  \u{1b}[2J peer=10.0.0.7:6881 why="a \"b\"\n" piece=5"#;
        check(Form::Prefixed, &format!("<4>banned\n{second}\n"));
        let json: Value = serde_json::from_str(&Form::Json.line(&record)).unwrap();
        assert_eq!(
            (&json["level"], &json["peer"], &json["piece"], &json["message"]),
            (&"warning".into(), &"10.0.0.7:6881".into(), &5.into(), &"banned\n  \x1b[2J".into())
        );
    }
}
