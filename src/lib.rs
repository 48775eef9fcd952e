//! HPT.
