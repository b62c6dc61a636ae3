//! The fleet as Prometheus reads it: text format 0.0.4, base units, counters ending in `_total`.

use super::diagnosis::Health;
use super::machine::{Machine, Phase};
use super::{Fleet, Image};
use std::fmt::Write as _;

/// All metrics.
pub(in crate::control) fn metrics(fleet: &Fleet) -> String {
    let mut text = Text::default();
    let machines: Vec<&Machine> = fleet.reports.machines().collect();
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    text.family("ezio_build_info", "gauge", "The program's version.", [(version, 1.0)]);
    images(&mut text, &fleet.around.images);
    let phases = Phase::ALL.map(|phase| {
        let count = machines.iter().filter(|m| m.facts.phase == phase).count();
        (format!("phase=\"{}\"", phase.name()), count as f64)
    });
    text.family("ezio_machines", "gauge", "Machines in each phase.", phases);
    let healths = Health::ALL.map(|health| {
        let count = machines.iter().filter(|m| m.health == health).count();
        (format!("health=\"{}\"", health.name()), count as f64)
    });
    text.family("ezio_machines_health", "gauge", "Machines by how they fare.", healths);
    let eta = machines.iter().filter_map(|m| m.eta()).max();
    let eta = [(String::new(), eta.map_or(f64::NAN, |eta| eta as f64))];
    let help = "Time until the last machine has its image; NaN while nobody knows.";
    text.family("ezio_eta_seconds", "gauge", help, eta);
    per_machine(&mut text, &machines);
    text.0
}

fn images(text: &mut Text, images: &[Image]) {
    let of = |value: fn(&Image) -> u64| {
        let label = |image: &Image| format!("image=\"{}\"", escaped(&image.name));
        images.iter().map(move |image| (label(image), value(image) as f64))
    };
    text.family("ezio_image_bytes", "gauge", "Used bytes of the image.", of(|i| i.bytes));
    text.family("ezio_image_pieces", "gauge", "Pieces of the image.", of(|i| i.pieces));
    let help = "Bytes of the image that this server has sent.";
    text.family("ezio_server_sent_bytes_total", "counter", help, of(|i| i.sent_bytes));
    let help = "Connections of this server to peers.";
    text.family("ezio_server_peers", "gauge", help, of(|i| i.peers));
}

fn per_machine(text: &mut Text, machines: &[&Machine]) {
    let of = |value: fn(&Machine) -> f64| {
        machines.iter().map(move |machine| {
            let (host, device) = (escaped(&machine.facts.host), escaped(&machine.facts.device));
            let addr = escaped(&machine.addr);
            let labels = format!("machine=\"{host}\",address=\"{addr}\",device=\"{device}\"");
            (labels, value(machine))
        })
    };
    let help = "How much of the machine's image is on its medium, 0 to 1.";
    text.family("ezio_machine_progress_ratio", "gauge", help, of(Machine::progress));
    let help = "Bytes the machine has received.";
    let received = of(|m| m.facts.received_bytes as f64);
    text.family("ezio_machine_received_bytes_total", "counter", help, received);
    let help = "Bytes the machine has passed on to others.";
    let sent = of(|m| m.facts.sent_bytes as f64);
    text.family("ezio_machine_sent_bytes_total", "counter", help, sent);
    let help = "Verified bytes that wait for the machine's disk.";
    let waiting = of(|m| m.facts.waiting_bytes as f64);
    text.family("ezio_machine_write_queue_bytes", "gauge", help, waiting);
    let help = "Connections of the machine to peers.";
    text.family("ezio_machine_peers", "gauge", help, of(|m| m.facts.peers as f64));
    let help = "What the machine's link carries, as its kernel says; 0 if it does not.";
    let link = of(|m| m.facts.link_mbit.unwrap_or(0) as f64 * 125_000.0);
    text.family("ezio_machine_link_bytes_per_second", "gauge", help, link);
    let help = "1 if the machine is slow, stuck, gone or has failed.";
    let ill = of(|m| f64::from(u8::from(m.health != Health::Fine)));
    text.family("ezio_machine_needs_attention", "gauge", help, ill);
}

#[derive(Default)]
struct Text(String);

impl Text {
    /// A family of samples: labels and values. One without samples is left out.
    fn family(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, f64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stays_within_its_quotes() {
        assert_eq!(escaped("a\"}\n\\"), "a\\\"}\\n\\\\");
        let mut text = Text::default();
        text.family("x_bytes", "gauge", "Some.", [("a=\"b\"".to_owned(), 1.5)]);
        text.family("none", "gauge", "None.", []);
        assert_eq!(text.0, "# HELP x_bytes Some.\n# TYPE x_bytes gauge\nx_bytes{a=\"b\"} 1.5\n");
    }
}
