// SPDX-License-Identifier: GPL-2.0-or-later
//! What the library costs. Every figure stands beside two others from the same run: the floor, the least that could do
//! the same, and the rival, QEMU's own algorithm. `scripts/bench` runs it all.

pub mod downtime;
pub mod floor;
pub mod iterates;
pub mod kernel_table;
pub mod library;
pub mod measure;
pub mod memory_table;
pub mod rival;
pub mod tables;
pub mod vast;
