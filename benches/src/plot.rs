//! The plot of the comparison, as SVG that is readable on light and on dark pages.

use std::fmt::Write as _;

use crate::comparison::{Figures, Series};
use crate::dataset::Dataset;
use crate::median;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 110.0;
const ROW: f64 = 22.0;
const GROUP: f64 = 34.0;
const TOP: f64 = 44.0;

/// Records per second of every peer as bars, one group for each data set.
pub(crate) fn rates(results: &[(&Dataset, Vec<Series>)]) -> String {
    let rate = |series: &Series| median(series.rounds.iter().map(Figures::rate));
    let most = results
        .iter()
        .flat_map(|(_, all)| all.iter().map(rate))
        .fold(1.0, f64::max);
    let rows: usize = results.iter().map(|(_, all)| all.len()).sum();
    let height = TOP + GROUP * results.len() as f64 + ROW * rows as f64 + 12.0;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="Records per second of Strait and its peers">
<style>
text {{ fill: #24292f }} .quiet {{ fill: #57606a }} .strait {{ fill: #0969da }} .other {{ fill: #8c959f }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} .quiet {{ fill: #9198a1 }} .strait {{ fill: #58a6ff }} .other {{ fill: #6e7681 }} }}
</style>
<text x="8" y="22" font-weight="600">Records per second, start of the process included</text>
"#
    );
    let mut y = TOP;
    // Writing to a String cannot fail.
    for (data, all) in results {
        let what = match data.name() {
            "none" => "uncompressed, 1,000 bytes".to_owned(),
            codec => format!(
                "{codec}, JSON of {:.0} bytes",
                data.value_bytes / data.records as f64
            ),
        };
        let _ = writeln!(
            svg,
            r#"<text class="quiet" x="8" y="{:.0}">{what}</text>"#,
            y + 16.0
        );
        y += GROUP - 10.0;
        for series in all {
            let rate = rate(series);
            let class = if series.peer == crate::peer::Peer::Strait {
                "strait"
            } else {
                "other"
            };
            let width = rate / most * (WIDTH - LEFT - RIGHT);
            let _ = writeln!(
                svg,
                r#"<text x="{:.0}" y="{:.0}" text-anchor="end">{}</text><rect class="{class}" x="{LEFT}" y="{:.0}" width="{width:.1}" height="{:.0}" rx="2"/><text class="quiet" x="{:.0}" y="{:.0}">{}</text>"#,
                LEFT - 8.0,
                y + 15.0,
                series.peer.name(),
                y + 3.0,
                ROW - 6.0,
                LEFT + width + 6.0,
                y + 15.0,
                thousands(rate),
            );
            y += ROW;
        }
        y += 10.0;
    }
    svg += "</svg>\n";
    svg
}

fn thousands(rate: f64) -> String {
    let digits = format!("{rate:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
