// SPDX-License-Identifier: GPL-2.0-or-later
//! What the kernel's HPT file descriptor does, three times over.
//!
//! - [`model`]: a model of the kernel side of `KVM_PPC_GET_HTAB_FD`, faults included, in plain memory, with
//!   a virtual clock and fault injection: it runs anywhere and makes every interleaving repeatable.
//! - [`kvm`]: the same interface onto a real KVM-HV kernel.
//! - [`conformance`]: named cases, each one claim about the kernel, run by the same code on both. They are
//!   what entitles anyone to believe the model.
//!
//! Nothing here uses the library under test: an oracle that shares code with what it judges agrees with its
//! faults too.

pub mod conformance;
#[cfg(target_os = "linux")]
pub mod kvm;
pub mod model;
pub mod record;
pub mod runner;
pub mod vm;

pub use model::Model;
pub use vm::{HtabFd, Vm};
