//! TODO punch
