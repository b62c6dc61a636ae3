//! What machines report, and orders to them, as `ezio serve` takes them: JSON of strangers. Everything that
//! is kept is JSON, and no text of a stranger becomes markup, a formula, or a metric.

#![no_main]

use ezio::control::Told;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    // Reports, and an order behind the last newline.
    let mut parts: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let order = parts.pop().unwrap_or_default();
    // Pages take most of the time: of an eighth.
    let pages = data.len().is_multiple_of(8);
    let told = Told::of(&parts, order, pages);
    let list: Value = serde_json::from_str(&told.list).expect("the list is JSON");
    let list = list.as_array().expect("the list is one");
    assert_eq!(list.len(), told.machines);
    for report in list {
        let node = report["report"]["node"].as_str().expect("a report has a name");
        assert!((1..=128).contains(&node.chars().count()));
    }
    assert!(told.ordered.is_none_or(|count| count <= told.machines as u64));
    if pages {
        check_shown(&told);
        let calm: Vec<Vec<u8>> = parts.iter().map(|part| calm(part)).collect();
        let calm: Vec<&[u8]> = calm.iter().map(Vec::as_slice).collect();
        check_documents(&told, &Told::of(&calm, order, true));
    }
});

/// Every text is short, every number one that browsers count exactly.
fn check_shown(told: &Told) {
    let machines = told.shown.as_array().expect("machines are a list");
    assert_eq!(machines.len(), told.machines);
    for value in machines.iter().filter_map(Value::as_object).flat_map(|machine| machine.values()) {
        match value {
            Value::String(text) => assert!(text.chars().count() <= 2000, "{text}"),
            Value::Number(number) => assert!(number.as_f64().is_some_and(|n| n.abs() < 1.0e17)),
            _ => {}
        }
    }
}

/// As many tags, lines and metrics as of reports whose texts have nothing special in them.
fn check_documents(told: &Told, calm: &Told) {
    if told.machines != calm.machines {
        return;
    }
    let count = |text: &str, what: char| text.matches(what).count();
    for what in ['<', '>'] {
        assert_eq!(count(&told.html, what), count(&calm.html, what), "{}", told.html);
    }
    assert_eq!(records(&told.csv), told.machines + 1, "{}", told.csv);
    let names = |text: &str| {
        let lines = text.lines().map(|line| line.split(['{', ' ']).next().unwrap_or_default());
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&told.metrics), names(&calm.metrics), "{}", told.metrics);
}

/// Records of a CSV (RFC 4180), none of whose cells is a formula.
fn records(csv: &str) -> usize {
    let (mut records, mut quoted, mut begins) = (0, false, true);
    for char in csv.chars() {
        let formula = begins && matches!(char, '=' | '+' | '-' | '@' | '\t');
        assert!(!formula, "{csv}");
        // A cell that is quoted begins behind the quote.
        begins = char == ',' && !quoted || begins && char == '"';
        match char {
            '"' => quoted = !quoted,
            '\n' if !quoted => (records, begins) = (records + 1, true),
            _ => {}
        }
    }
    records
}

/// The same report without anything in its texts that means something anywhere.
fn calm(body: &[u8]) -> Vec<u8> {
    let Ok(mut report) = serde_json::from_slice::<Value>(body) else { return body.to_vec() };
    quiet(&mut report);
    report.to_string().into_bytes()
}

fn quiet(value: &mut Value) {
    match value {
        Value::String(text) => {
            *text = text.replace(|char: char| !char.is_ascii_alphanumeric() && char != '_', "x");
        }
        Value::Array(list) => list.iter_mut().for_each(quiet),
        Value::Object(map) => map.values_mut().for_each(quiet),
        _ => {}
    }
}
