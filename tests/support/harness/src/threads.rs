// SPDX-License-Identifier: GPL-2.0-or-later
//! Threads, as the kernel knows them.

use spapr_htab::inside::save::reader::THREAD_NAME;
use std::fs;
use std::time::{Duration, Instant};

/// What the status of each thread with this name has in a field.
pub fn status(name: &str, field: &str) -> Result<Vec<String>, String> {
    let tasks = fs::read_dir("/proc/self/task").map_err(|error| format!("/proc/self/task: {error}"))?;
    let mut found = Vec::new();
    for task in tasks.flatten() {
        // A thread may end meanwhile; then it is none of these.
        let text = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let value = |field: &str| text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
        if value("Name") == Some(name) {
            found.extend(value(field).map(str::to_owned));
        }
    }
    Ok(found)
}

/// How many threads read ahead.
pub fn readers() -> Result<usize, String> {
    Ok(status(THREAD_NAME, "State")?.len())
}

/// Waits for what another thread is to bring about; far longer than it takes.
pub fn wait_for(mut condition: impl FnMut() -> bool) -> Result<(), String> {
    let began = Instant::now();
    while !condition() {
        if began.elapsed() > Duration::from_secs(60) {
            return Err("a minute was not enough".to_owned());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}
