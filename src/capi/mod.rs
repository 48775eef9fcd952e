// SPDX-License-Identifier: GPL-2.0-or-later
//! The C interface: all that the static library exports.
//!
//! The pointer contract, stated once for every function:
//! - `handle` is NULL or came from [`lifetime::spapr_htab_new`] and was not given to [`lifetime::spapr_htab_free`]
//!   since;
//! - other pointers are NULL or valid for what the function's documentation says, for the length of the call;
//! - the callbacks of [`types::SpaprHtabHost`] keep to their own documentation until the handle is freed.
//!
//! Whatever can be checked is: a NULL where none is allowed gives -EINVAL, and no panic leaves the library.
// The contract is the one above, of each function alike; their documentation becomes the C header's.
#![allow(unsafe_code, clippy::missing_safety_doc)]

pub mod handle;
pub mod lifetime;
pub mod load;
pub mod lookup;
pub mod save;
pub mod stats;
pub mod types;

mod call;
mod fd;
mod host;
mod log;
#[cfg(spapr_htab_test_panic)]
mod test_panic;
