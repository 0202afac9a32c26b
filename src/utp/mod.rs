//! TODO utp
