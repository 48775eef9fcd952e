// SPDX-License-Identifier: GPL-2.0-or-later
//! A report as one picture, SVG: where the table's entries are, what was sent again, and what each pass sent.

mod chart;
mod map;

use crate::report::{Kind, Report, Table};
use crate::text::{grouped, ranges};
use chart::{Bar, Chart, Series};
use map::Map;
use svg::Document;
use svg::node::element::{Group, Rectangle, Text};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 880.0;
/// Two columns.
const LEFT: f64 = 24.0;
const RIGHT: f64 = 496.0;
const COLUMN: f64 = 440.0;
/// Passes that get bars of their own; those after them share the last.
const MOST_BARS: usize = 20;

const INK: &str = "#222222";
const FAINT: &str = "#666666";
const BLUE: &str = "#2f6690";
const PALE: &str = "#9fbfd6";
const RED: &str = "#c1440e";

/// The picture, which needs nothing but itself.
pub fn svg(report: &Report) -> String {
    let mut document = Document::new()
        .set("viewBox", (0, 0, WIDTH, HEIGHT))
        .set("font-family", "sans-serif")
        .add(Rectangle::new().set("width", WIDTH).set("height", HEIGHT).set("fill", "#ffffff"))
        .add(words(LEFT, 32.0, 20.0, INK, "What a migration sent of its guest’s hash table"));
    document = match &report.table {
        Some(table) => {
            for (line, y) in summary(report, table).iter().zip([54.0, 72.0]) {
                document = document.add(words(LEFT, y, 13.0, FAINT, line));
            }
            parts(table).into_iter().fold(document, Document::add)
        }
        None => document.add(words(LEFT, 54.0, 13.0, FAINT, "The guest has none.")),
    };
    if let Some(fault) = &report.fault {
        let broken = format!("The file is broken, and what follows is not drawn. {fault}");
        document = document.add(words(LEFT, 90.0, 12.0, RED, &broken));
    }
    document.to_string() + "\n"
}

fn summary(report: &Report, table: &Table) -> [String; 2] {
    let machine = report.stream.as_ref().map_or(String::new(), |stream| format!("{}: ", stream.machine));
    let [all, stopped] = [table.total.sent, table.stopped];
    [
        format!(
            "{machine}{} entries, a table of {} KiB. Sent: {} records, {} bytes; {} of them while the guest was \
             stopped.",
            grouped(table.contents.valid),
            grouped((1 << table.order) >> 10),
            grouped(all.records),
            grouped(all.bytes),
            grouped(stopped.bytes),
        ),
        "The scales of the bars are logarithmic, so that small passes can be seen beside the first."
            .to_owned(),
    ]
}

fn parts(table: &Table) -> Vec<Group> {
    let each = table.map.slots_per_cell;
    let entries = Map {
        title: "Where the entries are at the end",
        about: format!("A square is {each} slots; slot 0 is at the top left, then row by row."),
        unit: "entries",
        none: "none",
        colours: ["#d7e5ef", "#a9c8de", "#6fa3c7", "#3c78a4", "#1c4a6e"],
        cells: &table.map.entries,
    };
    let again = Map {
        title: "What was sent again, after the first pass",
        about: format!(
            "The same squares; {} slots sent, each time counted.",
            grouped(table.later_passes.sent.slots())
        ),
        unit: "times",
        none: "never",
        colours: ["#fbe0c3", "#f7b77a", "#ee8435", "#cf5512", "#8a2f06"],
        cells: &table.map.sent_again,
    };
    vec![
        entries.draw(LEFT, 112.0, COLUMN),
        again.draw(RIGHT, 112.0, COLUMN),
        slots_chart(table).draw(LEFT, 432.0, COLUMN),
        bytes_chart(table).draw(RIGHT, 432.0, COLUMN),
        runs_chart(table).draw(LEFT, 662.0, COLUMN),
        groups_chart(table).draw(RIGHT, 662.0, COLUMN),
    ]
}

/// A name for each pass that gets bars, and its two values; what comes after the last shares its bars.
fn by_pass(table: &Table, values: impl Fn(usize) -> [u64; 2]) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    for number in 0..table.passes.len() {
        let values = values(number);
        match bars.last_mut().filter(|_| number > MOST_BARS) {
            Some(last) => {
                last.name = format!("{}+", MOST_BARS + 1);
                last.values.iter_mut().zip(values).for_each(|(all, one)| *all += one);
            }
            None => bars.push(Bar { name: (number + 1).to_string(), values: values.to_vec() }),
        }
    }
    bars
}

fn slots_chart(table: &Table) -> Chart {
    Chart {
        title: "Slots sent in each pass",
        about: "Pass 1 is the whole table, later ones are what changed.",
        series: vec![
            Series { name: "entries", colour: BLUE },
            Series { name: "slots that became invalid", colour: PALE },
        ],
        bars: by_pass(table, |pass| [table.passes[pass].sent.valid, table.passes[pass].sent.invalid]),
    }
}

fn bytes_chart(table: &Table) -> Chart {
    let running = |pass: usize| table.passes[pass].sent.bytes - table.passes[pass].stopped.bytes;
    Chart {
        title: "Bytes sent in each pass",
        about: "What is sent while the guest is stopped is part of its downtime.",
        series: vec![
            Series { name: "while the guest ran", colour: BLUE },
            Series { name: "while it was stopped", colour: RED },
        ],
        bars: by_pass(table, |pass| [running(pass), table.passes[pass].stopped.bytes]),
    }
}

/// Of a hundred records, how many begin with so many entries.
fn runs_chart(table: &Table) -> Chart {
    let shares = |kind: &Kind| -> Vec<(u16, u16, u64)> { ranges(&kind.valid_runs) };
    let (first, later) = (shares(&table.first_pass), shares(&table.later_passes));
    let mut lengths: Vec<(u16, u16)> =
        first.iter().chain(&later).map(|&(least, most, _)| (least, most)).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let records = |runs: &[(u16, u16, u64)], length| {
        runs.iter().find(|(least, most, _)| (*least, *most) == length).map_or(0, |(_, _, records)| *records)
    };
    let name = |(least, most)| if least == most { format!("{least}") } else { format!("{least}–{most}") };
    Chart {
        title: "Records, by the number of entries in them",
        about: "0: all slots of the record are invalid.",
        series: vec![
            Series { name: "first pass", colour: BLUE },
            Series { name: "later passes", colour: "#ee8435" },
        ],
        bars: lengths
            .into_iter()
            .map(|length| Bar {
                name: name(length),
                values: vec![records(&first, length), records(&later, length)],
            })
            .collect(),
    }
}

fn groups_chart(table: &Table) -> Chart {
    let counts = table.contents.groups_with.iter().enumerate();
    Chart {
        title: "Groups of 8 slots, by the entries in them",
        about: "Where eight are, an entry must go for each that comes.",
        series: vec![Series { name: "groups at the end", colour: BLUE }],
        bars: counts
            .map(|(entries, &groups)| Bar { name: entries.to_string(), values: vec![groups] })
            .collect(),
    }
}

/// Some words; `x` is where they begin.
fn words(x: f64, y: f64, size: f64, colour: &str, words: &str) -> Text {
    Text::new(words).set("x", x).set("y", y).set("font-size", size).set("fill", colour)
}

/// A box of one colour.
fn filled(x: f64, y: f64, width: f64, height: f64, colour: &str) -> Rectangle {
    let tenths = |length: f64| (length * 10.0).round() / 10.0;
    Rectangle::new()
        .set("x", tenths(x))
        .set("y", tenths(y))
        .set("width", tenths(width))
        .set("height", tenths(height))
        .set("fill", colour)
}
