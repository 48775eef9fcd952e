// SPDX-License-Identifier: GPL-2.0-or-later
//! The library's tests in Rust; each file beside this one, and each folder, is a test program.
