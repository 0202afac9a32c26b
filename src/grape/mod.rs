//! TODO grape
