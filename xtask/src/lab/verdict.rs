//! Medians of what scenarios asked, beside their bars.

use super::figure::Told;
use super::report::{Sample, greatest, median};
use super::scenario::Case;

/// A table in Markdown; `cases` have run, and `samples` came of them.
pub(super) fn table(scenario: &str, cases: &[Case], samples: &[Sample]) -> String {
    let mut lines = vec![
        "| scenario | case | figure | median (least, most) | bar | met | runs |".to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    for case in cases {
        let runs: Vec<&Sample> = samples.iter().filter(|sample| sample.case == case.name).collect();
        for figure in &case.figures {
            let name = figure.name();
            let wants_time = figure.measure.wants_time();
            let counting = runs.iter().filter(|run| !(wants_time && run.cpu_bound));
            let told = counting.flat_map(|run| &run.figures);
            let values: Vec<f64> =
                told.filter(|told| told.name == name).map(|told: &Told| told.value).collect();
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let value = match values.len() {
                0 => "-".to_owned(),
                _ => {
                    format!("{:.3} ({least:.3}, {:.3})", median(values.clone()), greatest(&values))
                }
            };
            let bar = figure.bar.map(|bar| bar.to_string()).unwrap_or_default();
            let met = match figure.bar {
                Some(_) if values.is_empty() => "not measured",
                Some(bar) if bar.is_met(median(values.clone())) => "yes",
                Some(_) => "**no**",
                None => "",
            };
            lines.push(format!(
                "| {scenario} | {} | {name} | {value} | {bar} | {met} | {}/{} |",
                case.name,
                values.len(),
                runs.len()
            ));
        }
    }
    lines.join("\n")
}
