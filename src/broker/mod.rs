//! TODO broker
