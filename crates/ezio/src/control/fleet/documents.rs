//! The report at the end, to be kept: what became of every machine, as CSV and as HTML.
//!
//! Every text in it comes from a machine of the network. A spreadsheet takes a cell that begins with
//! `=` for a formula and a browser takes `<` for a tag: neither shall happen.

use super::Fleet;
use serde_json::Value;
use std::fmt::Write as _;
use swarm::units::{Bytes, Rate, Seconds};

/// The columns: what they are called, and the machine's key.
const COLUMNS: [(&str, &str); 16] = [
    ("host", "host"),
    ("address", "addr"),
    ("mac", "mac"),
    ("image", "image"),
    ("device", "device"),
    ("model", "model"),
    ("disk_serial", "disk_serial"),
    ("machine_serial", "serial"),
    ("outcome", "phase"),
    ("seconds", "seconds"),
    ("bytes", "stored_bytes"),
    ("average_bytes_per_second", "average"),
    ("passed_on_bytes", "sent_bytes"),
    ("verified", "verified"),
    ("read_again", "read_again"),
    ("error", "error"),
];

/// A line for each machine, as RFC 4180 has it.
pub(in crate::control) fn csv(fleet: &Fleet) -> String {
    let mut text = COLUMNS.map(|(name, _)| name).join(",") + "\r\n";
    for machine in list(&fleet.machines()) {
        let cells = COLUMNS.map(|(_, key)| cell(&plain(&told(key, machine))));
        text += &(cells.join(",") + "\r\n");
    }
    text
}

/// Who is gone was downloading, but that is not what became of it.
fn told(key: &str, machine: &Value) -> Value {
    match key {
        "phase" if machine["health"] == "gone" => machine["health"].clone(),
        "error" if machine["health"] == "gone" => machine["reason"].clone(),
        _ => machine[key].clone(),
    }
}

fn cell(text: &str) -> String {
    let text = match text.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r') => format!("'{text}"),
        _ => text.to_owned(),
    };
    if text.contains([',', '"', '\r', '\n']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(number) => format!("{number:.0}"),
            None => number.to_string(),
        },
        other => other.to_string(),
    }
}

fn list(machines: &Value) -> &[Value] {
    machines.as_array().map_or(&[], Vec::as_slice)
}

/// The same for people: one page that needs nothing else and can be printed.
pub(in crate::control) fn html(fleet: &Fleet) -> String {
    let (machines, summary) = (fleet.machines(), fleet.summary());
    let images = fleet.images();
    let names: Vec<String> = list(&images)
        .iter()
        .map(|image| {
            let bytes = Bytes(image["bytes"].as_u64().unwrap_or(0));
            format!("{} ({bytes})", plain(&image["name"]))
        })
        .collect();
    let mut page = String::from(HEAD);
    let count = |key: &str| summary[key].as_u64().unwrap_or(0);
    // Writing to a string cannot fail.
    let _ = write!(
        page,
        "<h1>Deployment of {}</h1><p>{} of {} machines done, {} failed, {} gone; {} in all. \
         This server sent {}.</p>",
        escaped(&names.join(", ")),
        count("done"),
        count("machines"),
        count("failed"),
        count("gone"),
        Seconds(count("elapsed_seconds")),
        Bytes(count("server_sent_bytes")),
    );
    page += "<table><thead><tr>";
    for (name, _) in SHOWN {
        let _ = write!(page, "<th scope=col>{name}");
    }
    page += "<tbody>";
    for machine in list(&machines) {
        let _ = write!(page, "<tr class={}>", escaped(&plain(&told("phase", machine))));
        for (_, key) in SHOWN {
            let class = if is_words(key) { " class=words" } else { "" };
            let _ = write!(page, "<td{class}>{}", escaped(&shown(key, machine)));
        }
        page.push('\n');
    }
    page + "</table>\n"
}

/// What people see, what matters first: the names and the machine's keys. An error stands beside the
/// outcome, where it is not overlooked.
const SHOWN: [(&str, &str); 15] = [
    ("host", "host"),
    ("outcome", "phase"),
    ("time", "seconds"),
    ("bytes", "stored_bytes"),
    ("average", "average"),
    ("passed on", "sent_bytes"),
    ("verified", "verified"),
    ("read again", "read_again"),
    ("address", "addr"),
    ("MAC", "mac"),
    ("image", "image"),
    ("device", "device"),
    ("model", "model"),
    ("disk serial", "disk_serial"),
    ("machine serial", "serial"),
];

/// What may take several lines; a number or an address is read in one.
fn is_words(key: &str) -> bool {
    matches!(key, "host" | "image" | "device" | "model" | "phase")
}

fn shown(key: &str, machine: &Value) -> String {
    let value = told(key, machine);
    let (number, error) = (value.as_u64().unwrap_or_default(), plain(&told("error", machine)));
    match key {
        "phase" if !error.is_empty() => format!("{}: {error}", plain(&value)),
        "stored_bytes" | "sent_bytes" => Bytes(number).to_string(),
        "average" => Rate(number).to_string(),
        "seconds" => Seconds(value.as_f64().unwrap_or_default() as u64).to_string(),
        _ => plain(&value),
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8>\
<meta name=viewport content=\"width=device-width\"><title>EZIO report</title><style>\
body{font:14px/1.5 system-ui,sans-serif;margin:2em;color:#1d2327;background:#fff}\
table{border-collapse:collapse;width:100%;font-size:.9em;font-variant-numeric:tabular-nums}\
th,td{text-align:left;padding:.3em .45em;border-bottom:1px solid #d5dae0;vertical-align:top}\
th{font-weight:600}td{white-space:nowrap}.failed td{background:#fdecea}.gone td{background:#f1f3f5}\
.words{white-space:normal;overflow-wrap:anywhere;min-width:5.5em}td:nth-child(2){min-width:8em}\
@page{size:landscape;margin:1cm}@media print{body{font-size:9px;margin:0}}</style>\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_no_formulas_and_texts_no_tags() {
        assert_eq!(cell("=1+1"), "'=1+1");
        assert_eq!(cell("@a,\"b\"\n"), "\"'@a,\"\"b\"\"\n\"");
        assert_eq!(cell("lab 7"), "lab 7");
        assert_eq!(escaped("<i a='1'>&\""), "&lt;i a=&#39;1&#39;&gt;&amp;&quot;");
    }
}
