// SPDX-License-Identifier: GPL-2.0-or-later
//! The library at work on one VM's table and into another's, as named cases that run by the same code on the model and
//! on a real kernel (`src/bin/cases.rs`), and what tests need to write more of them.

pub mod cases;
pub mod gate;
pub mod guest;
pub mod handle;
pub mod host;
pub mod memory;
pub mod migration;
pub mod plan;
pub mod sweeper;
pub mod threads;
pub mod wire;
pub mod world;
