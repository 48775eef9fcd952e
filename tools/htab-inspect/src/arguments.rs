// SPDX-License-Identifier: GPL-2.0-or-later
//! The command line.

use clap::Parser;
use std::path::PathBuf;

/// Says what a saved migration of a POWER guest did to its hash table.
///
/// FILE is a migration of QEMU 7.2 to 10.2 as `migrate "exec:cat >FILE"` or `file:FILE` saves it, or the bodies of its
/// sections spapr/htab alone, back to back. The sections are checked and listed, and replayed to the table that they
/// leave.
///
/// The status is 0 if all is well, 1 if tables that were compared differ, 64 for wrong usage, 65 for a file that is
/// broken, 66 for one that cannot be read, 73 if something cannot be written.
#[derive(Parser)]
#[command(name = "htab-inspect", version)]
pub struct Arguments {
    /// What to inspect; - is standard input
    pub file: PathBuf,

    /// Print all that was found as JSON
    #[arg(long)]
    pub json: bool,

    /// Draw what was sent, and what the table is, as SVG or HTML
    #[arg(long, value_name = "FILE.svg|FILE.html", value_parser = report_path)]
    pub report: Option<PathBuf>,

    /// Compare the table with the one that another stream leaves
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,

    /// Compare the table with a dump of one, as it stands in QEMU's memory
    #[arg(long, value_name = "FILE")]
    pub against_table: Option<PathBuf>,

    /// Bytes that stand before the stream, as file:NAME,offset=N leaves them
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub skip: u64,

    /// List each section
    #[arg(long)]
    pub sections: bool,

    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
}

fn report_path(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg" | "html") => Ok(path),
        _ => Err("a report ends in .svg or .html".to_owned()),
    }
}
