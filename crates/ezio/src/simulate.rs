//! `ezio sim`: how long a deployment will take, before anybody buys a switch.
//!
//! The scheduling is the very code that deploys; network and disks are simulated.

use crate::ui::Ui;
use serde_json::json;
use sim::predict::{Scenario, describe, predict};

/// Predicts `scenario` for each number of clients.
///
/// # Errors
/// If the scenario makes no sense.
pub fn run(scenario: &Scenario, clients: &[usize], ui: Ui) -> anyhow::Result<()> {
    let predictions = predict(scenario, clients)?;
    let list: Vec<_> = predictions
        .iter()
        .map(|p| {
            json!({
                "clients": p.clients,
                // Times are for people and plots: a float's 53 bits are enough.
                "seconds": p.makespan_ns as f64 / 1e9,
                "ratio": p.ratio as f64 / 1e3,
                "limited_by": p.limit.name(),
                "server_copies": p.source_copies as f64 / 1e3,
                "pieces_simulated": p.simulated,
            })
        })
        .collect();
    let json = json!({
        "image_bytes": scenario.len,
        "piece_bytes": scenario.piece_len(),
        "pieces": scenario.pieces(),
        "link_bytes_per_second": scenario.link,
        "disk_bytes_per_second": scenario.disk,
        "seed": scenario.seed,
        "link_seconds": scenario.link_ns() as f64 / 1e9,
        "predictions": list,
    });
    ui.result(&describe(scenario, &predictions), json);
    Ok(())
}
