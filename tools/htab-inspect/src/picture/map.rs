// SPDX-License-Identifier: GPL-2.0-or-later
//! A heat map of the table.

use super::{FAINT, INK, filled, words};
use crate::text::grouped;
use std::fmt::Write;
use svg::node::element::{Group, Path, Rectangle};

const LEVELS: usize = 5;
/// Beyond this, both ends of five ranges would not fit side by side.
const MOST_IN_RANGES: u64 = 9999;

/// The table in cells of equal size, each the darker the more there is in it.
pub struct Map<'a> {
    pub title: &'a str,
    pub about: String,
    /// What is counted, and what a cell without any is called.
    pub unit: &'a str,
    pub none: &'a str,
    pub colours: [&'a str; LEVELS],
    pub cells: &'a [u64],
}

impl Map<'_> {
    /// Twice as wide as high.
    pub fn draw(&self, x: f64, y: f64, width: f64) -> Group {
        let columns = 1_usize << self.cells.len().ilog2().div_ceil(2);
        let rows = self.cells.len() / columns;
        let height = width / 2.0;
        let most = self.cells.iter().copied().max().unwrap_or(0);
        let scale = format!(
            "translate({x} {}) scale({:.4} {:.4})",
            y + 26.0,
            width / columns as f64,
            height / rows as f64
        );
        let mut squares = Group::new().set("transform", scale).set("shape-rendering", "crispEdges");
        for (level, colour) in (1..).zip(self.colours) {
            let path = self.path(columns, level, most);
            if !path.is_empty() {
                squares = squares.add(Path::new().set("d", path).set("fill", colour));
            }
        }
        let frame = Rectangle::new()
            .set("x", x)
            .set("y", y + 26.0)
            .set("width", width)
            .set("height", height)
            .set("fill", "none")
            .set("stroke", "#aaaaaa");
        Group::new()
            .add(words(x, y, 15.0, INK, self.title))
            .add(words(x, y + 17.0, 11.0, FAINT, &self.about))
            .add(squares)
            .add(frame)
            .add(self.legend(x, y + 26.0 + height + 10.0, most))
    }

    /// The cells of a level, those side by side as one rectangle, in a grid of squares of size 1.
    fn path(&self, columns: usize, level: usize, most: u64) -> String {
        let mut path = String::new();
        for (row, cells) in self.cells.chunks(columns).enumerate() {
            let mut column = 0;
            while column < cells.len() {
                let run = cells[column..].iter().take_while(|&&cell| level_of(cell, most) == level).count();
                if run > 0 {
                    // Writing to a string cannot fail.
                    let _ = write!(path, "M{column} {row}h{run}v1h-{run}z");
                }
                column += run.max(1);
            }
        }
        path
    }

    fn legend(&self, x: f64, y: f64, most: u64) -> Group {
        let mut legend = Group::new();
        let mut at = x;
        let frame = filled(at, y, 12.0, 12.0, "#ffffff").set("stroke", "#aaaaaa");
        legend = legend.add(frame).add(words(at + 17.0, y + 10.0, 11.0, FAINT, self.none));
        at += 64.0;
        for (level, colour) in (1..).zip(self.colours) {
            let counts = || self.cells.iter().copied().filter(|&cell| level_of(cell, most) == level);
            let (Some(least), Some(last)) = (counts().min(), counts().max()) else { continue };
            let range = match least {
                _ if least == last => grouped(least),
                _ if most > MOST_IN_RANGES => format!("to {}", grouped(last)),
                _ => format!("{least}–{last}"),
            };
            let range = if last == most { format!("{range} {}", self.unit) } else { range };
            legend = legend.add(filled(at, y, 12.0, 12.0, colour)).add(words(
                at + 17.0,
                y + 10.0,
                11.0,
                FAINT,
                &range,
            ));
            at += 30.0 + 6.0 * range.chars().count() as f64;
        }
        legend
    }
}

/// 0 for none, else 1 to LEVELS: steps of one factor, so that a few cells with very much do not pale all others.
fn level_of(count: u64, most: u64) -> usize {
    let reaches = |level: &usize| count as f64 <= (most as f64).powf(*level as f64 / LEVELS as f64);
    if count == 0 { 0 } else { (1..LEVELS).find(reaches).unwrap_or(LEVELS) }
}
