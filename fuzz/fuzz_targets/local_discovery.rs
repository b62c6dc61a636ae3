//! Datagrams of local discovery (BEP 14), against a second reader.

#![no_main]

use ezio::control::lsd::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let found = Message::parse(data);
    assert_eq!(found, reference(data), "{}", data.escape_ascii());
    let Some(message) = found else { return };
    assert!(message.port != 0 && (1..=27).contains(&message.info_hashes.len()), "{message:?}");
    let text = written(&message);
    if text.len() <= 1400 {
        assert_eq!(Message::parse(text.as_bytes()).as_ref(), Some(&message), "{text:?}");
    }
    let longer = [data, &[b'x'; 1400]].concat();
    assert_eq!(Message::parse(&longer), None, "longer than a network takes whole");
});

fn written(message: &Message) -> String {
    let mut text = format!("bt-search * http/1.1\r\nX: y\r\nPORT:{}\r\n", message.port);
    for hash in &message.info_hashes {
        let hex: String = hash.iter().map(|byte| format!("{byte:02X}")).collect();
        text += &format!("InfoHash: {hex}\r\n");
    }
    if let Some(cookie) = &message.cookie {
        text += &format!("Cookie:  {cookie}\r\n");
    }
    text + "\r\n\r\nPort: 0\r\n"
}

/// Cuts the text up first, then looks for the last of each header.
fn reference(data: &[u8]) -> Option<Message> {
    let text = str::from_utf8(data).ok().filter(|text| text.len() <= 1400)?;
    let head = text.split_once("\r\n\r\n").map_or(text, |(head, _)| head);
    // An empty line may also be the first.
    let mut lines = head.split("\r\n");
    if lines.next()?.to_ascii_lowercase() != "bt-search * http/1.1" {
        return None;
    }
    let mut headers = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let colon = line.find(':')?;
        headers.push((line[..colon].to_ascii_lowercase(), line[colon + 1..].trim()));
    }
    let all = |name: &str| -> Vec<&str> {
        headers.iter().filter(|(found, _)| found == name).map(|(_, value)| *value).collect()
    };
    let digits = all("port").pop().filter(|port| port.chars().all(|c| c.is_ascii_digit()))?;
    let port = digits.parse().ok().filter(|port| *port != 0)?;
    let info_hashes: Vec<_> = all("infohash").into_iter().map(hash).collect::<Option<_>>()?;
    let cookie = all("cookie").pop().map(str::to_owned);
    (!info_hashes.is_empty()).then_some(Message { port, info_hashes, cookie })
}

fn hash(hex: &str) -> Option<[u8; 20]> {
    if hex.len() != 40 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok();
    let bytes: Vec<u8> = (0..20).map(byte).collect::<Option<_>>()?;
    bytes.try_into().ok()
}
