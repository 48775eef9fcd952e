// SPDX-License-Identifier: GPL-2.0-or-later
//! Bars side by side.

use super::{FAINT, INK, filled, words};
use crate::text::grouped;
use svg::node::element::{Group, Line};

const HEIGHT: f64 = 120.0;
/// From the title's baseline down to the top of the highest bar.
const HEAD: f64 = 60.0;
/// Room at the right for the scale's numbers.
const SCALE: f64 = 48.0;

/// What one colour stands for.
pub struct Series {
    pub name: &'static str,
    pub colour: &'static str,
}

/// The bars at one place, one of each series.
pub struct Bar {
    pub name: String,
    pub values: Vec<u64>,
}

/// A chart with its titles.
pub struct Chart {
    pub title: &'static str,
    pub about: &'static str,
    pub series: Vec<Series>,
    pub bars: Vec<Bar>,
}

impl Chart {
    pub fn draw(&self, x: f64, y: f64, width: f64) -> Group {
        let floor = y + HEAD + HEIGHT;
        let mut chart = Group::new()
            .add(words(x, y, 15.0, INK, self.title))
            .add(words(x, y + 17.0, 11.0, FAINT, self.about))
            .add(self.names(x, y + 26.0))
            .add(across(x, width, floor, "#aaaaaa"));
        let most = self.bars.iter().flat_map(|bar| &bar.values).copied().max().unwrap_or(0);
        for power in (1..).map_while(|power| 10_u64.checked_pow(power)).take_while(|&power| power < most) {
            let level = floor - share(power, most) * HEIGHT;
            let number = words(x + width, level - 2.0, 9.0, FAINT, &grouped(power)).set("text-anchor", "end");
            chart = chart.add(across(x, width, level, "#e4e4e4")).add(number);
        }
        let place = ((width - SCALE) / self.bars.len().max(1) as f64).min(110.0);
        let thick = place * 0.84 / self.series.len() as f64;
        let labelled = thick > 24.0;
        for (number, bar) in self.bars.iter().enumerate() {
            let left = x + place * number as f64 + place * 0.08;
            for (at, (&value, series)) in bar.values.iter().zip(&self.series).enumerate() {
                if value == 0 {
                    continue;
                }
                let (begin, height) = (left + thick * at as f64, share(value, most) * HEIGHT);
                chart = chart.add(filled(begin, floor - height, thick - 1.0, height, series.colour));
                if labelled {
                    let label = words(begin + thick / 2.0, floor - height - 3.0, 10.0, INK, &grouped(value));
                    chart = chart.add(label.set("text-anchor", "middle"));
                }
            }
            let name = words(left + place * 0.42, floor + 14.0, 10.0, FAINT, &bar.name);
            chart = chart.add(name.set("text-anchor", "middle"));
        }
        chart
    }

    fn names(&self, x: f64, y: f64) -> Group {
        let mut names = Group::new();
        let mut at = x;
        for series in &self.series {
            names = names.add(filled(at, y, 12.0, 12.0, series.colour)).add(words(
                at + 17.0,
                y + 10.0,
                11.0,
                FAINT,
                series.name,
            ));
            at += 40.0 + 6.0 * series.name.len() as f64;
        }
        names
    }
}

fn across(x: f64, width: f64, y: f64, colour: &str) -> Line {
    Line::new().set("x1", x).set("x2", x + width).set("y1", y).set("y2", y).set("stroke", colour)
}

/// A bar's part of the height: by the logarithm, since the first pass has a thousand times what later ones have.
fn share(value: u64, most: u64) -> f64 {
    let log = |value: u64| (1.0 + value as f64).log10();
    log(value) / log(most)
}
