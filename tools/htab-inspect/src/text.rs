// SPDX-License-Identifier: GPL-2.0-or-later
//! A report for a terminal.

use crate::bodies::{Runs, Section, Sent, What};
use crate::compare::{Comparison, Slots};
use crate::qemu::Stream;
use crate::report::{Kind, Report, Table};
use std::fmt::Write;

/// Passes listed one by one before the rest is left out.
const LISTED_PASSES: usize = 12;
/// Run lengths listed one by one; longer ones are counted by powers of two.
const LISTED_LENGTHS: u16 = 8;

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Of `all`, in words; nothing of nothing is 0 %.
pub fn percent(part: u64, all: u64) -> String {
    if all == 0 { "0 %".to_owned() } else { format!("{:.1} %", part as f64 * 100.0 / all as f64) }
}

/// The lengths of runs in ranges that a person can look over: (least, most, records).
pub fn ranges(runs: &Runs) -> Vec<(u16, u16, u64)> {
    let mut ranges: Vec<(u16, u16, u64)> = Vec::new();
    for (&length, &records) in runs {
        let (least, most) = match length {
            0..=LISTED_LENGTHS => (length, length),
            _ => {
                let least = 1_u16 << (length - 1).ilog2();
                (least + 1, least.saturating_mul(2))
            }
        };
        match ranges.last_mut() {
            Some(last) if last.0 == least => last.2 += records,
            _ => ranges.push((least, most, records)),
        }
    }
    ranges
}

/// The text; `sections` lists them one by one.
pub fn text(report: &Report, sections: bool) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, report, sections);
    out
}

fn write(out: &mut String, report: &Report, sections: bool) -> std::fmt::Result {
    if report.fault.is_some() && report.stream.is_none() && report.sections.is_empty() {
        return Ok(());
    }
    writeln!(out, "{}", report.file)?;
    match &report.stream {
        Some(stream) => write_stream(out, stream, report.bytes)?,
        None => writeln!(out, "  bodies of spapr/htab, {} bytes", grouped(report.bytes))?,
    }
    if report.replaced > 0 {
        writeln!(
            out,
            "  the table was replaced {} times; {} bytes of records for the earlier ones are not in the figures below",
            report.replaced,
            grouped(report.replaced_bytes)
        )?;
    }
    write_sections(out, &report.sections, sections)?;
    match &report.table {
        Some(table) => write_table(out, table)?,
        None => writeln!(out, "\nNo hash table.")?,
    }
    report.comparison.as_ref().map_or(Ok(()), |comparison| write_comparison(out, comparison))
}

fn write_stream(out: &mut String, stream: &Stream, bytes: u64) -> std::fmt::Result {
    writeln!(out, "  a migration of a {} machine, {} bytes", stream.machine, grouped(bytes))?;
    let ram = &stream.ram;
    if ram.mapped {
        writeln!(out, "  RAM {} MiB, mapped: each page has its place in the file", ram.size >> 20)?;
    } else {
        let sent = [
            (ram.pages, "whole"),
            (ram.zero_pages, "of zeros"),
            (ram.xbzrle_pages, "as XBZRLE"),
            (ram.compressed_pages, "compressed"),
        ];
        let sent: Vec<String> = sent
            .iter()
            .filter(|(pages, _)| *pages > 0)
            .map(|(pages, how)| format!("{} {how}", grouped(*pages)))
            .collect();
        writeln!(out, "  RAM {} MiB; pages sent: {}", ram.size >> 20, sent.join(", "))?;
    }
    writeln!(out, "  {} devices, {} bytes", stream.devices, grouped(stream.device_bytes))?;
    if stream.trailing > 0 {
        writeln!(out, "  {} bytes behind the stream's end", grouped(stream.trailing))?;
    }
    Ok(())
}

fn write_sections(out: &mut String, sections: &[Section], each: bool) -> std::fmt::Result {
    let with_records = sections.iter().filter(|section| section.sent.records > 0).count();
    writeln!(out, "  {} sections spapr/htab, {with_records} with records", sections.len())?;
    if !each {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:>14} {:8} {:>10} {:>12} {:>10} {:>12}",
        "at byte", "", "entries", "invalid", "records", "bytes"
    )?;
    for section in sections {
        let part = format!("{:?}", section.part).to_lowercase();
        match section.what {
            What::NoTable => writeln!(out, "{:>14} {part:8} no table", section.offset)?,
            What::Table(order) => writeln!(out, "{:>14} {part:8} a table of order {order}", section.offset)?,
            What::Records => writeln!(out, "{:>14} {part:8} {}", section.offset, counts(section.sent))?,
        }
    }
    Ok(())
}

fn counts(sent: Sent) -> String {
    format!(
        "{:>10} {:>12} {:>10} {:>12}",
        grouped(sent.valid),
        grouped(sent.invalid),
        grouped(sent.records),
        grouped(sent.bytes)
    )
}

fn write_table(out: &mut String, table: &Table) -> std::fmt::Result {
    writeln!(
        out,
        "\nThe table: order {}, {} KiB, {} slots in {} groups of 8",
        table.order,
        grouped((1 << table.order) >> 10),
        grouped(table.slots),
        grouped(table.groups)
    )?;
    let contents = &table.contents;
    let of_valid = |count| format!("{} ({})", grouped(count), percent(count, contents.valid));
    writeln!(
        out,
        "  entries    {} ({} of the slots)",
        grouped(contents.valid),
        percent(contents.valid, table.slots)
    )?;
    writeln!(out, "  bolted     {}", of_valid(contents.bolted))?;
    writeln!(out, "  referenced {}, changed {}", of_valid(contents.referenced), of_valid(contents.changed))?;
    let pages: Vec<String> =
        contents.pages.iter().map(|(size, count)| format!("{size}: {}", grouped(*count))).collect();
    writeln!(out, "  pages      {}", pages.join(", "))?;
    let (primary, secondary) = (of_valid(contents.primary_hash), of_valid(contents.secondary_hash));
    writeln!(out, "  hash       primary {primary}, secondary {secondary}")?;
    let fill: Vec<String> = contents.groups_with.iter().copied().map(grouped).collect();
    writeln!(out, "  groups     with 0 to 8 entries: {}", fill.join("  "))?;

    writeln!(out, "\n{:17} {:>10} {:>12} {:>10} {:>12}", "Sent", "entries", "invalid", "records", "bytes")?;
    for (number, pass) in table.passes.iter().enumerate() {
        match number {
            0 => writeln!(out, "  first pass      {}", counts(pass.sent))?,
            _ if number <= LISTED_PASSES => writeln!(out, "  later pass {number:<4} {}", counts(pass.sent))?,
            _ => {}
        }
    }
    if table.passes.len() > LISTED_PASSES + 1 {
        writeln!(out, "  … {} passes in all", table.passes.len())?;
    }
    if table.passes.len() > 2 {
        writeln!(out, "  later passes    {}", counts(table.later_passes.sent))?;
    }
    writeln!(out, "  all             {}", counts(table.total.sent))?;
    writeln!(out, "    while stopped {}", counts(table.stopped))?;
    writeln!(out, "  {} slots that had an entry were sent again", grouped(contents.slots_sent_again))?;
    writeln!(out, "  CRC-32 {}", table.crc32)?;
    if table.demoted > 0 {
        writeln!(
            out,
            "  {} entries lack their valid bit; a destination takes them as invalid slots",
            table.demoted
        )?;
    }
    if table.private_bits > 0 {
        writeln!(
            out,
            "  {} entries have bit 0x40, which is nobody's data (a source without this library)",
            table.private_bits
        )?;
    }
    writeln!(out, "\nRecords by their run of valid entries, and of invalid slots")?;
    for (name, kind) in [("first pass", &table.first_pass), ("later passes", &table.later_passes)] {
        write_runs(out, name, kind)?;
    }
    Ok(())
}

fn write_runs(out: &mut String, name: &str, kind: &Kind) -> std::fmt::Result {
    if kind.sent.records == 0 {
        return Ok(());
    }
    for (what, runs) in [("valid", &kind.valid_runs), ("invalid", &kind.invalid_runs)] {
        let listed: Vec<String> = ranges(runs)
            .into_iter()
            .map(|(least, most, records)| {
                let length = if least == most { least.to_string() } else { format!("{least}–{most}") };
                format!("{length}: {}", grouped(records))
            })
            .collect();
        writeln!(out, "  {:22} {}", format!("{name}, {what}"), listed.join("  "))?;
    }
    writeln!(
        out,
        "  {:22} {} bytes; with an index in every entry {}, without invalid slots {}",
        "",
        grouped(kind.sent.bytes),
        grouped(kind.indexed_bytes),
        grouped(kind.indexed_valid_bytes)
    )
}

fn write_comparison(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    if let Some((ours, theirs)) = comparison.orders {
        return writeln!(out, "\nThe other table is of order {theirs}, not {ours}.");
    }
    writeln!(out, "\nThis table, of {} entries, and the other one", grouped(comparison.entries))?;
    let all = [
        ("here only", &comparison.here_only),
        ("there only", &comparison.there_only),
        ("different", &comparison.different),
        ("R and C only", &comparison.r_and_c),
    ];
    for (name, Slots { count, first }) in all {
        let first: Vec<String> = first.iter().map(u64::to_string).collect();
        let slots = if first.is_empty() { String::new() } else { format!("  slots {}", first.join(" ")) };
        writeln!(
            out,
            "  {name:12} {:>10}{slots}{}",
            grouped(*count),
            if *count > first.len() as u64 { " …" } else { "" }
        )?;
    }
    Ok(())
}
