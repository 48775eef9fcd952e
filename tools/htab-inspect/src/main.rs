// SPDX-License-Identifier: GPL-2.0-or-later
//! htab-inspect: what a saved migration did to a guest's hash table, without a debugger.
#![forbid(unsafe_code)]

mod arguments;
mod bodies;
mod compare;
mod fault;
mod input;
mod page;
mod picture;
mod qemu;
mod replay;
mod report;
mod text;

use arguments::Arguments;
use bodies::{Bodies, Part};
use clap::Parser;
use compare::Comparison;
use fault::Fault;
use input::Input;
use replay::Replay;
use report::Report;
use spapr_htab::inside::format::hpte::Order;
use spapr_htab::inside::format::section;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// What the program ends with, as sysexits.h numbers it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Good = 0,
    Differs = 1,
    Usage = 64,
    Broken = 65,
    NoInput = 66,
    CannotWrite = 73,
}

/// Why there is nothing to show.
struct Failure {
    status: Status,
    sentence: String,
}

impl Failure {
    fn new(status: Status, path: &Path, why: impl fmt::Display) -> Failure {
        Failure { status, sentence: format!("{}: {why}", path.display()) }
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and the version are errors to clap; those it prints to standard output.
            let status = if error.use_stderr() { Status::Usage } else { Status::Good };
            let _ = error.print();
            return ExitCode::from(status as u8);
        }
    };
    let status = run(&arguments).unwrap_or_else(|failure| {
        eprintln!("htab-inspect: {}", failure.sentence);
        failure.status
    });
    ExitCode::from(status as u8)
}

fn run(arguments: &Arguments) -> Result<Status, Failure> {
    let (mut report, bodies) = inspect(&arguments.file, arguments.skip, arguments.quiet)?;
    if let Some(other) = other_table(arguments)? {
        let ours = bodies.table.as_ref().map(|table| &table.replay);
        let why = "there is no table to compare";
        report.comparison = Some(match (ours, &other) {
            (Some(ours), Some(theirs)) => Comparison::of(ours, theirs),
            (None, None) => Comparison::default(),
            (None, _) => return Err(Failure::new(Status::Broken, &arguments.file, why)),
            (_, None) => {
                return Err(Failure { status: Status::Broken, sentence: format!("the other file: {why}") });
            }
        });
    }
    if let Some(path) = &arguments.report {
        let html = path.extension().is_some_and(|extension| extension == "html");
        let drawn = if html { page::html(&report) } else { picture::svg(&report) };
        fs::write(path, drawn).map_err(|error| Failure::new(Status::CannotWrite, path, error))?;
    }
    let output = if arguments.json {
        serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
    } else {
        text::text(&report, arguments.sections)
    };
    // A reader that has seen enough, as head does, is no failure.
    match io::stdout().write_all(output.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(Failure::new(Status::CannotWrite, Path::new("standard output"), error));
        }
        _ => {}
    }
    if let Some(fault) = &report.fault {
        return Err(Failure::new(Status::Broken, &arguments.file, fault));
    }
    let same = report.comparison.as_ref().is_none_or(Comparison::same);
    Ok(if same { Status::Good } else { Status::Differs })
}

/// The table to compare with, if one is asked for; a stream may leave none.
fn other_table(arguments: &Arguments) -> Result<Option<Option<Replay>>, Failure> {
    if let Some(path) = &arguments.against_table {
        let dump = fs::read(path).map_err(|error| Failure::new(Status::NoInput, path, error))?;
        let size = dump.len();
        let order = size.checked_ilog2().filter(|_| size.is_power_of_two()).and_then(Order::new);
        let why = || format!("{size} bytes are no table: one has a power of two of them, 256 KiB or more");
        let order = order.ok_or_else(|| Failure::new(Status::Broken, path, why()))?;
        return Ok(Some(Some(Replay::of_dump(order, &dump))));
    }
    let Some(path) = &arguments.against else { return Ok(None) };
    let (report, bodies) = inspect(path, 0, arguments.quiet)?;
    match report.fault {
        Some(fault) => Err(Failure::new(Status::Broken, path, fault)),
        None => Ok(Some(bodies.table.map(|table| table.replay))),
    }
}

/// Reads a file of either kind; what was found up to a fault is shown, too.
fn inspect(path: &Path, skip: u64, quiet: bool) -> Result<(Report, Bodies), Failure> {
    let mut input = Input::open(path, quiet).map_err(|error| Failure::new(Status::NoInput, path, error))?;
    let (stream, bodies, fault) = read(&mut input, skip);
    let report = Report::new(path.display().to_string(), input.offset(), stream, &bodies, fault);
    Ok((report, bodies))
}

fn read(input: &mut Input, skip: u64) -> (Option<qemu::Stream>, Bodies, Option<Fault>) {
    let mut bodies = Bodies::default();
    let mut stream = qemu::Stream::default();
    let mut kind = || {
        input.skip(skip, "what stands before the stream")?;
        input.peek()
    };
    match kind() {
        Err(fault) => (None, bodies, Some(fault)),
        Ok(Some(qemu::MAGIC)) => {
            let fault = qemu::walk(input, &mut bodies, &mut stream).err();
            (Some(stream), bodies, fault)
        }
        Ok(first) => {
            let fault = bare(input, first, &mut bodies).err();
            (None, bodies, fault)
        }
    }
}

/// Bodies back to back.
fn bare(input: &mut Input, first: Option<[u8; 4]>, bodies: &mut Bodies) -> Result<(), Fault> {
    if first.is_none_or(|bytes| section::BodyHeader::parse(bytes).is_err()) {
        let reason = "neither a migration of QEMU's, which begins with QEVM, nor a body of spapr/htab";
        return Err(Fault::new(input.offset(), reason));
    }
    while input.peek::<1>()?.is_some() {
        bodies.read(input, section::VERSION.unsigned_abs(), Part::Unknown)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
