//! The mirror's engine: flows, writers, ledger, resume, fencing.
