//! Protocol tests. [`fuzz`] has one target for every decoder of bytes from outside.

pub mod fuzz;
